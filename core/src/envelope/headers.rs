//! CloudEvents attributes as headers or fields with a prefix: binary mode.
