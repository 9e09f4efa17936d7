use super::{Cursor, Path, closest};
use crate::config::problem::Finding;
use crate::config::yaml::{Entry, Value};

/// A mapping that is read key by key.
pub struct Fields<'a, 'c> {
    cursor: &'c Cursor<'a>,
    entries: &'a [Entry<'a>],
    /// Which entries were asked for; a mapping of known keys is short.
    seen: Vec<bool>,
    known: Vec<&'static str>,
    /// Keys that are known to the standard but not built, with what to say of them.
    not_built: Vec<(&'static str, &'static str)>,
    /// What to say of a key that is like none of those known.
    otherwise: Option<&'static str>,
}

impl<'a, 'c> Fields<'a, 'c> {
    pub(super) fn new(cursor: &'c Cursor<'a>, entries: &'a [Entry<'a>]) -> Self {
        Self {
            cursor,
            entries,
            seen: vec![false; entries.len()],
            known: Vec::new(),
            not_built: Vec::new(),
            otherwise: None,
        }
    }

    /// The mapping itself, to report on it as a whole.
    pub fn cursor(&self) -> Cursor<'a> {
        *self.cursor
    }

    /// Is there such a key with a value? Does not count as asking for it.
    pub fn has(&self, key: &str) -> bool {
        let found = self.entries.iter().find(|entry| entry.key == key);
        found.is_some_and(|entry| entry.value.value != Value::Null)
    }

    /// Is none of these lists there, or all of them empty?
    pub fn lacks(&self, lists: &[&str]) -> bool {
        let is_filled = |entry: &Entry<'_>| match &entry.value.value {
            Value::Sequence(items) => !items.is_empty(),
            value => *value != Value::Null,
        };
        let mut named = self
            .entries
            .iter()
            .filter(|entry| lists.contains(&&*entry.key));
        !named.any(is_filled)
    }

    /// None where the key is left out, null, or its value is wrong (which is reported).
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(key);
        let position = self.entries.iter().position(|entry| entry.key == key)?;
        self.seen[position] = true;
        let node = &self.entries[position].value;
        if node.value == Value::Null {
            return None;
        }
        let path = Path::Key(&self.cursor.path, key);
        read(Cursor {
            node,
            path,
            findings: self.cursor.findings,
        })
    }

    /// As [`Fields::optional`] where the key means anything, else as if nobody knew it.
    pub fn optional_if<T>(
        &mut self,
        meaningful: bool,
        key: &'static str,
        read: impl FnOnce(Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        match meaningful {
            true => self.optional(key, read),
            false => None,
        }
    }

    /// As [`Fields::optional`], but its absence is a problem.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.known.push(key);
            if let Some(at) = self.entries.iter().position(|entry| entry.key == key) {
                self.seen[at] = true;
            }
            return self
                .cursor
                .error(format!("`{key}` is missing"), self.suspect(key));
        }
        self.optional(key, read)
    }

    /// The list under a key; empty where it is left out or no list.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        read: impl FnMut(Cursor<'_>) -> Option<T>,
    ) -> Vec<T> {
        self.optional(key, |list| list.list(read))
            .unwrap_or_default()
    }

    /// Keys that may be there and say nothing here, such as Kubernetes' `status`.
    pub fn ignore(&mut self, keys: &[&'static str]) {
        self.known.extend(keys);
        for (entry, seen) in self.entries.iter().zip(&mut self.seen) {
            *seen |= keys.contains(&&*entry.key);
        }
    }

    /// Where the keys cannot be told, as the kind is unknown.
    pub fn ignore_rest(&mut self) {
        self.seen.fill(true);
    }

    /// Keys that users may know from the standard, and what to do without them.
    pub fn not_built(&mut self, keys: &[(&'static str, &'static str)]) {
        self.not_built.extend(keys);
    }

    /// What to say of a key that is like none of those known, in place of listing them.
    pub fn otherwise(&mut self, advice: &'static str) {
        self.otherwise = Some(advice);
    }

    /// The unknown key that was probably meant by one that is missing.
    fn suspect(&self, key: &str) -> String {
        let unseen = self
            .entries
            .iter()
            .zip(&self.seen)
            .filter(|(_, seen)| !**seen);
        match closest(key, unseen.map(|(entry, _)| &*entry.key)) {
            Some(written) => format!("is it `{written}`?"),
            None => String::new(),
        }
    }

    pub(super) fn finish(self) {
        let unseen = self
            .entries
            .iter()
            .zip(&self.seen)
            .filter(|(_, seen)| !**seen);
        for (entry, _) in unseen {
            self.cursor.report(|| self.unknown(entry));
        }
    }

    fn unknown(&self, entry: &Entry<'_>) -> Finding {
        let spot = self
            .cursor
            .spot_of_key(&entry.key, entry.key_mark, entry.key_end);
        let message = format!("unknown key `{}`", entry.key);
        Finding::error(spot, message, self.hint(&entry.key))
    }

    fn hint(&self, key: &str) -> String {
        if let Some((_, advice)) = self.not_built.iter().find(|(name, _)| *name == key) {
            return format!("not built yet{advice}");
        }
        if let Some(meant) = closest(key, self.known.iter().copied()) {
            return format!("did you mean `{meant}`?");
        }
        if let Some(advice) = self.otherwise {
            return advice.to_owned();
        }
        let mut known = self.known.clone();
        known.sort_unstable();
        known.dedup();
        format!("known here: {}", known.join(", "))
    }
}
