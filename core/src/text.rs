//! The string type of attributes and names.

/// An immutable string that is cheap to clone: inline up to 23 bytes, shared above.
///
/// Attribute values, topic names and header names are of this type. It converts from `&str`
/// and `String`, derefs to `str`, and a literal costs no allocation by
/// [`Text::new_static`].
pub type Text = smol_str::SmolStr;

pub use smol_str::format_smolstr as format_text;
