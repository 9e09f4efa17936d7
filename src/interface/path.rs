//! Paths with parameters, as OpenAPI writes them: `/carts/{id}/items`. A parameter is one byte or more, and never a `/`.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode;

use crate::model::PathMatch;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    text: String,
    elements: Vec<Element>,
}

/// What stands before, between and behind the parameters of one element; decoded.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Element(Vec<Vec<u8>>);

impl Template {
    /// `text` begins with `/`.
    pub fn new(text: String) -> Self {
        let elements = text[1..].split('/').map(Element::new).collect();
        Self { text, elements }
    }

    pub fn matches(&self, path: &[u8]) -> bool {
        let Some(path) = path.strip_prefix(b"/") else {
            return false;
        };
        let mut asked = path.split(|byte| *byte == b'/');
        let mut own = self.elements.iter();
        own.all(|element| asked.next().is_some_and(|asked| element.matches(asked)))
            && asked.next().is_none()
    }

    /// Whether a path of these is one that a route matches.
    pub fn has_one_of(&self, wanted: &PathMatch) -> bool {
        match wanted {
            PathMatch::Exact(path) => self.matches(path.as_bytes()),
            PathMatch::Prefix(prefix) => self.begins_with(prefix.as_bytes()),
            PathMatch::Regex(regex) => {
                self.parameters() > 0 || regex.is_match(self.text.as_bytes())
            }
            PathMatch::Method(method) => {
                let [_, own] = &self.elements[..] else {
                    return false;
                };
                own.matches(method.as_bytes())
            }
        }
    }

    /// The elements of a prefix are whole ones.
    fn begins_with(&self, prefix: &[u8]) -> bool {
        let Some(prefix) = prefix.strip_prefix(b"/") else {
            return prefix.is_empty();
        };
        let mut own = self.elements.iter();
        let mut asked = prefix.split(|byte| *byte == b'/');
        asked.all(|asked| own.next().is_some_and(|element| element.matches(asked)))
    }

    pub fn parameters(&self) -> usize {
        let each = self.elements.iter().map(|Element(parts)| parts.len() - 1);
        each.sum()
    }

    /// How many bytes of its beginning a path has too.
    pub fn shared_with(&self, path: &str) -> usize {
        let pairs = self.text.bytes().zip(path.bytes());
        pairs.take_while(|(own, other)| own == other).count()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Element {
    fn new(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once('{')
            && let Some((_, behind)) = from.split_once('}')
        {
            parts.push(decoded(before.as_bytes()).into_owned());
            rest = behind;
        }
        parts.push(decoded(rest.as_bytes()).into_owned());
        Self(parts)
    }

    /// The leftmost place for each part leaves most to those behind it.
    fn matches(&self, asked: &[u8]) -> bool {
        let asked = decoded(asked);
        let Self(parts) = self;
        let [first, between @ .., last] = &parts[..] else {
            return *asked == parts[0][..];
        };
        let Some(mut rest) = asked.strip_prefix(&first[..]) else {
            return false;
        };
        for part in between {
            let Some(at) = rest
                .get(1..)
                .and_then(|behind| memchr::memmem::find(behind, part))
            else {
                return false;
            };
            rest = &rest[1 + at + part.len()..];
        }
        rest.len() > last.len() && rest.ends_with(last)
    }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    percent_decode(text).into()
}
