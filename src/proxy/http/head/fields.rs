//! The fields of a head, or of trailers.

use super::Known;

/// Fields in the order they came, names in the case they came in, repeated fields kept apart.
///
/// Each lies in the arena as `name: value\r\n`. What is removed or replaced stays in the arena until [`Fields::clear`],
/// which is bounded because heads are.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// A bit for each [`Known`] that is among the entries.
    present: Mask,
}

/// Where a field lies in the arena; its line is `name_len + 2 + value_len + 2` bytes long.
#[derive(Clone, Copy, Debug)]
struct Entry {
    start: u32,
    name_len: u32,
    value_len: u32,
    known: Known,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<'a> {
    pub known: Known,
    pub name: &'a [u8],
    pub value: &'a [u8],
}

/// `: ` after a name, and `\r\n` after a value, are two bytes each.
const SEPARATOR_LEN: usize = 2;

impl Fields {
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets all fields and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
        self.present = 0;
    }

    /// Gives back memory beyond these many bytes, for connections that are parked.
    pub fn shrink_to(&mut self, arena_bytes_max: usize) {
        self.arena.shrink_to(arena_bytes_max);
        self.entries
            .shrink_to(arena_bytes_max / std::mem::size_of::<Entry>());
    }

    /// The memory that all names and values lie in, for those who share it as a whole.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| self.field(entry))
    }

    /// Whether the field is there; a bit test.
    #[inline]
    pub fn contains(&self, known: Known) -> bool {
        self.present & bit(known) != 0
    }

    /// Whether any of these is there; folds into one bit test when the list is constant.
    #[inline]
    pub fn contains_any(&self, all: &[Known]) -> bool {
        self.present & all.iter().fold(0, |mask, known| mask | bit(*known)) != 0
    }

    /// The first value of the field.
    #[inline]
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        if !self.contains(known) {
            return None;
        }
        self.get_all(known).next()
    }

    /// The length of the body, of a message whose framing has been checked.
    pub fn content_length(&self) -> Option<u64> {
        let value = self.get(Known::ContentLength)?;
        std::str::from_utf8(value).ok()?.parse().ok()
    }

    pub fn get_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.entries
            .iter()
            .filter(move |entry| entry.known == known)
            .map(|entry| self.field(entry).value)
    }

    /// The first value of the field with this name, in any case.
    pub fn find(&self, name: &[u8]) -> Option<&[u8]> {
        self.find_all(name).next()
    }

    /// The values of all fields with this name, in any case.
    pub fn find_all<'a, 'n>(
        &'a self,
        name: &'n [u8],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let known = Known::from_name(name);
        self.entries
            .iter()
            .filter(move |entry| self.is_named(entry, known, name))
            .map(|entry| self.field(entry).value)
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_known(Known::from_name(name), name, value);
    }

    /// Adds a field whose name the caller has classified.
    pub fn push_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let entry = self.write(known, name, value);
        self.entries.push(entry);
        self.present |= bit(known);
    }

    /// Makes this the only field of that name, in the place of the first one, or else at the end.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.set_known(Known::from_name(name), name, value);
    }

    /// As [`Fields::set`], of a field whose name the caller has classified.
    pub fn set_known(&mut self, known: Known, name: &[u8], value: &[u8]) {
        let Some(first) = self.position(known, name) else {
            return self.push_known(known, name, value);
        };
        let entry = self.write(known, name, value);
        self.replace(first, entry);
    }

    /// Makes one list of all values of the field and of this one at its end: `for, for2, value`.
    pub fn append_to_list(&mut self, name: &[u8], value: &[u8]) {
        let known = Known::from_name(name);
        let Some(first) = self.position(known, name) else {
            return self.push_known(known, name, value);
        };
        let start = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(b": ");
        for index in first..self.entries.len() {
            let entry = self.entries[index];
            if self.is_named(&entry, known, name) {
                let value_start = entry.value_start();
                self.arena
                    .extend_from_within(value_start..value_start + entry.value_len as usize);
                self.arena.extend_from_slice(b", ");
            }
        }
        self.arena.extend_from_slice(value);
        let value_len = self.arena.len() - start - name.len() - SEPARATOR_LEN;
        self.arena.extend_from_slice(b"\r\n");
        let entry = Entry::new(known, start, name.len(), value_len);
        self.replace(first, entry);
    }

    /// Removes all fields of this kind; with [`Known::Other`] all that are not classified.
    pub fn remove(&mut self, known: Known) {
        if self.contains(known) {
            self.entries.retain(|entry| entry.known != known);
            self.present &= !bit(known);
        }
    }

    /// Removes all of these kinds in one walk.
    #[inline]
    pub fn remove_all(&mut self, all: &[Known]) {
        let mask = all.iter().fold(0, |mask, known| mask | bit(*known));
        if self.present & mask != 0 {
            self.entries.retain(|entry| bit(entry.known) & mask == 0);
            self.present &= !mask;
        }
    }

    /// Removes all fields with this name, in any case.
    pub fn remove_name(&mut self, name: &[u8]) {
        match Known::from_name(name) {
            Known::Other => self.retain(|field| {
                field.known != Known::Other || !field.name.eq_ignore_ascii_case(name)
            }),
            known => self.remove(known),
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let arena = &self.arena;
        let mut present = 0;
        self.entries.retain(|entry| {
            let kept = keep(entry.of(arena));
            if kept {
                present |= bit(entry.known);
            }
            kept
        });
        self.present = present;
    }

    /// Writes all fields but these kinds as HTTP/1 lines. Neighbours that are neighbours in the arena go in one copy.
    #[inline]
    pub fn write_except(&self, skipped: &[Known], out: &mut Vec<u8>) {
        let mask = skipped.iter().fold(0, |mask, known| mask | bit(*known));
        let mut run = 0..0;
        for entry in &self.entries {
            if bit(entry.known) & mask != 0 {
                continue;
            }
            let line = entry.line();
            if line.start != run.end {
                out.extend_from_slice(&self.arena[run]);
                run = line.start..line.start;
            }
            run.end = line.end;
        }
        out.extend_from_slice(&self.arena[run]);
    }

    /// For the HTTP/1 reader, which knows fields before it knows where their section ends: the next field will lie at
    /// `start` of the section that [`Fields::append_section`] takes over, exactly as `name: value\r\n`.
    #[inline]
    pub(in crate::proxy) fn push_raw(
        &mut self,
        known: Known,
        start: usize,
        name_len: usize,
        value_len: usize,
    ) {
        self.entries
            .push(Entry::new(known, start, name_len, value_len));
        self.present |= bit(known);
    }

    /// Takes over the bytes of the section that all fields so far were read from. Only for fields that were clear before.
    #[inline]
    pub(in crate::proxy) fn append_section(&mut self, section: &[u8]) {
        debug_assert!(self.arena.is_empty());
        self.arena.extend_from_slice(section);
    }

    /// Writes the field at `index` anew, for one whose line in the section was not exactly `name: value\r\n`.
    pub(in crate::proxy) fn rewrite(&mut self, index: usize, name: &[u8], value: &[u8]) {
        let entry = self.write(self.entries[index].known, name, value);
        self.entries[index] = entry;
    }

    fn write(&mut self, known: Known, name: &[u8], value: &[u8]) -> Entry {
        let start = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(b": ");
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(b"\r\n");
        Entry::new(known, start, name.len(), value.len())
    }

    /// Puts an entry in the place of the first of its name and removes the others.
    fn replace(&mut self, first: usize, entry: Entry) {
        let name_end = entry.start as usize + entry.name_len as usize;
        let arena = &self.arena;
        let name = &arena[entry.start as usize..name_end];
        let mut index = 0;
        self.entries.retain(|other| {
            let kept = index <= first
                || other.known != entry.known
                || (other.known == Known::Other
                    && !other.of(arena).name.eq_ignore_ascii_case(name));
            index += 1;
            kept
        });
        self.entries[first] = entry;
    }

    fn position(&self, known: Known, name: &[u8]) -> Option<usize> {
        if !self.contains(known) {
            return None;
        }
        self.entries
            .iter()
            .position(|entry| self.is_named(entry, known, name))
    }

    fn is_named(&self, entry: &Entry, known: Known, name: &[u8]) -> bool {
        entry.known == known
            && (known != Known::Other || self.field(entry).name.eq_ignore_ascii_case(name))
    }

    fn field(&self, entry: &Entry) -> Field<'_> {
        entry.of(&self.arena)
    }
}

impl Entry {
    /// Heads are bounded far below 4 GiB by the limits of whoever fills them.
    fn new(known: Known, start: usize, name_len: usize, value_len: usize) -> Self {
        debug_assert!(u32::try_from(start + name_len + value_len).is_ok());
        Self {
            start: start as u32,
            name_len: name_len as u32,
            value_len: value_len as u32,
            known,
        }
    }

    fn value_start(&self) -> usize {
        self.start as usize + self.name_len as usize + SEPARATOR_LEN
    }

    fn line(&self) -> std::ops::Range<usize> {
        let end = self.value_start() + self.value_len as usize + SEPARATOR_LEN;
        self.start as usize..end
    }

    fn of<'a>(&self, arena: &'a [u8]) -> Field<'a> {
        let start = self.start as usize;
        let value_start = self.value_start();
        Field {
            known: self.known,
            name: &arena[start..start + self.name_len as usize],
            value: &arena[value_start..value_start + self.value_len as usize],
        }
    }
}

impl PartialEq for Fields {
    /// The same fields in the same order, wherever they lie.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

#[cfg(test)]
impl Fields {
    /// These names and values, in this order.
    pub fn of(list: &[(&str, &str)]) -> Self {
        let mut fields = Self::new();
        for (name, value) in list {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

/// A set of [`Known`].
type Mask = u128;

#[inline]
const fn bit(known: Known) -> Mask {
    1 << known as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_except(&[], &mut out);
        String::from_utf8(out).expect("the tests use text")
    }

    #[test]
    fn case_order_and_repetition_are_kept() {
        let fields = Fields::of(&[("X-A", "1"), ("hOST", "h"), ("x-a", "2")]);
        assert_eq!(lines(&fields), "X-A: 1\r\nhOST: h\r\nx-a: 2\r\n");
        assert_eq!(fields.get(Known::Host), Some(&b"h"[..]));
        assert_eq!(fields.find(b"x-A"), Some(&b"1"[..]));
        assert_eq!(fields.find_all(b"x-A").count(), 2);
        assert!(!fields.contains(Known::Connection));
    }

    #[test]
    fn set_replaces_all_in_the_place_of_the_first() {
        let mut fields = Fields::of(&[("a", "1"), ("B", "2"), ("b", "3"), ("c", "4")]);
        fields.set(b"b", b"new");
        assert_eq!(lines(&fields), "a: 1\r\nb: new\r\nc: 4\r\n");
        fields.set(b"d", b"5");
        assert_eq!(fields.len(), 4);
        fields.set(b"Host", b"x");
        fields.set(b"host", b"y");
        assert_eq!(fields.get_all(Known::Host).count(), 1);
        assert_eq!(fields.get(Known::Host), Some(&b"y"[..]));
    }

    #[test]
    fn a_list_is_appended_to_across_lines() {
        let mut fields = Fields::of(&[
            ("X-Forwarded-For", "1.1.1.1"),
            ("a", "b"),
            ("x-forwarded-for", "2.2.2.2"),
        ]);
        fields.append_to_list(b"X-Forwarded-For", b"3.3.3.3");
        assert_eq!(
            lines(&fields),
            "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3\r\na: b\r\n"
        );
        fields.append_to_list(b"Via", b"1.1 x");
        assert_eq!(fields.get(Known::Via), Some(&b"1.1 x"[..]));
    }

    #[test]
    fn removal_forgets_the_field_and_its_bit() {
        let mut fields = Fields::of(&[("Host", "h"), ("a", "1"), ("A", "2"), ("te", "x")]);
        fields.remove_name(b"a");
        fields.remove(Known::Te);
        assert_eq!(lines(&fields), "Host: h\r\n");
        assert!(!fields.contains(Known::Te) && fields.get(Known::Te).is_none());
        fields.retain(|field| field.known != Known::Host);
        assert!(fields.is_empty() && !fields.contains(Known::Host));
    }

    #[test]
    fn skipped_fields_split_the_copied_runs() {
        let fields = Fields::of(&[("a", "1"), ("Connection", "close"), ("b", "2"), ("c", "3")]);
        let mut out = Vec::new();
        fields.write_except(&[Known::Connection], &mut out);
        assert_eq!(out, b"a: 1\r\nb: 2\r\nc: 3\r\n");
    }

    #[test]
    fn cleared_fields_leave_nothing_behind() {
        let mut fields = Fields::of(&[("Host", "h")]);
        fields.clear();
        assert!(fields.get(Known::Host).is_none() && fields.is_empty());
        fields.push(b"a", b"");
        assert_eq!(fields.find(b"a"), Some(&b""[..]));
    }
}
