use std::borrow::Cow;

/// A place in a document's text; both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mark {
    pub line: u32,
    pub column: u32,
}

/// A value and where it is written; an alias has the place of what it stands for.
#[derive(Clone, PartialEq, Debug)]
pub struct Node<'t> {
    pub value: Value<'t>,
    pub mark: Mark,
    pub end: Mark,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Value<'t> {
    /// What is left out or written `null` or `~`.
    Null,
    /// The text as it is written: `1.10` stays `1.10`, and what it means is the reader's to decide.
    Scalar {
        text: Cow<'t, str>,
        /// Written without quotes, so it may also mean a number or a switch.
        plain: bool,
    },
    Sequence(Vec<Node<'t>>),
    /// In the order written; keys are unique.
    Mapping(Vec<Entry<'t>>),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Entry<'t> {
    pub key: Cow<'t, str>,
    pub key_mark: Mark,
    pub key_end: Mark,
    pub value: Node<'t>,
}

impl<'t> Node<'t> {
    /// The value of a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node<'t>> {
        match &self.value {
            Value::Mapping(entries) => {
                let entry = entries.iter().find(|entry| entry.key == key)?;
                Some(&entry.value)
            }
            _ => None,
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub fn what(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}
