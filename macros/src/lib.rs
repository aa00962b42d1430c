//! The derive macro of polybus.
