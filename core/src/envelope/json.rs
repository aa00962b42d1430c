//! CloudEvents attributes as JSON.
