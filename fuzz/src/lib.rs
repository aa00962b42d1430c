//! What the fuzz targets run. `tests/hostile_input.rs` of the repository runs the same, bounded.

pub mod subjects;
