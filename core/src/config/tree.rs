//! A config as a tree of values that know where they were set. Readers of file formats make
//! it; everything behind them is the same for all formats.

use super::Origin;
use crate::Text;

/// A value and where it was set. Without `Debug`: it may be secret.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
    /// The text from the environment that the value was made of. It is read as a number or a
    /// truth value where one is asked for, and as text where text is.
    pub(super) environment: Option<String>,
}

#[derive(Clone)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(Table),
}

/// Entries in the order of the file.
#[derive(Clone, Default)]
pub(super) struct Table(Vec<(Text, Node)>);

impl Node {
    pub(super) fn new(value: Value, origin: Origin) -> Self {
        Self {
            value,
            origin,
            environment: None,
        }
    }

    pub(super) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The node under a key, if this is a table that has it.
    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        self.as_table()?.child(key)
    }

    /// The nodes of an array; none if this is no array.
    pub(super) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::Array(nodes) => nodes,
            _ => &[],
        }
    }

    /// Every text in this node and below it.
    pub(super) fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<_> = self.environment.as_deref().into_iter().collect();
        match &self.value {
            Value::String(text) => texts.push(text),
            Value::Array(nodes) => texts.extend(nodes.iter().flat_map(Self::texts)),
            Value::Table(table) => texts.extend(table.iter().flat_map(|(_, node)| node.texts())),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => {}
        }
        texts
    }
}

impl Value {
    /// What the value is, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Boolean(_) => "`true` or `false`",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

impl Table {
    pub(super) fn child(&self, key: &str) -> Option<&Node> {
        let mut entries = self.0.iter();
        entries.find_map(|(name, node)| (name == key).then_some(node))
    }

    pub(super) fn child_mut(&mut self, key: &str) -> Option<&mut Node> {
        let mut entries = self.0.iter_mut();
        entries.find_map(|(name, node)| (name == key).then_some(node))
    }

    /// Adds an entry behind the others. The caller has seen that the key is not there.
    pub(super) fn push(&mut self, key: impl Into<Text>, node: Node) {
        self.0.push((key.into(), node));
    }

    /// The node under a key, which becomes a table made at this origin if it is not there.
    pub(super) fn child_or_table(&mut self, key: &str, origin: &Origin) -> &mut Node {
        if self.child(key).is_none() {
            let table = Value::Table(Table::default());
            self.push(key, Node::new(table, origin.clone()));
        }
        self.child_mut(key).expect("the key was found or pushed")
    }

    pub(super) fn entries(&self) -> &[(Text, Node)] {
        &self.0
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (Text, Node)> {
        self.0.into_iter()
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.0.retain(|(name, _)| name != key);
    }

    /// Keeps the entries for which `keep` says so.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str, &mut Node) -> bool) {
        self.0.retain_mut(|(key, node)| keep(key, node));
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(key, node)| (key.as_str(), node))
    }

    pub(super) fn nodes_mut(&mut self) -> impl Iterator<Item = (&str, &mut Node)> {
        self.0.iter_mut().map(|(key, node)| (key.as_str(), node))
    }
}

/// The way to a value, as messages spell it: `transports.kafka.brokers[0]`. Lives on the stack
/// of a walk; written out only when something is wrong.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    /// A place that is spelled already.
    Start(&'a str),
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    pub(super) const ROOT: Path<'static> = Path::Start("");
}

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start(path) => f.write_str(path),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) => {
                let parent = parent.to_string();
                let dot = if parent.is_empty() { "" } else { "." };
                let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if !key.is_empty() && key.chars().all(bare) {
                    write!(f, "{parent}{dot}{key}")
                } else {
                    write!(f, "{parent}{dot}{key:?}")
                }
            }
        }
    }
}
