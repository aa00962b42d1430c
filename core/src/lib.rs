//! The contract of polybus: events, patterns, routes, handlers and the traits of a transport.
