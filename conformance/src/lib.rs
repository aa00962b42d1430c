//! The conformance suite that every polybus transport passes.
