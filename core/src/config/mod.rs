//! The config file.

mod section;

pub use section::Section;
