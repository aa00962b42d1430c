//! Real servers for the tests of polybus.
