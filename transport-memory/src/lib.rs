//! The memory transport of polybus.
