//! The bytes of the snapshot file. Pure: no IO, no clock, and no input that makes it panic.

use std::collections::HashMap;

/// The file's first bytes; the version after them changes only when an older reader could not read on.
const MAGIC: &[u8; 8] = b"PLNSNAP\n";
const VERSION: u32 = 1;
/// Magic, version, checksum of both.
pub(super) const HEADER_BYTES: usize = 16;
/// Length and checksum, before each record's payload.
const FRAME_BYTES: usize = 8;
/// One entry; the registry accepts no document and no instance near this size.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const COMMIT: u8 = 3;

/// Names an entry. Kinds that this version does not know are kept as they are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Key {
    pub kind: u8,
    pub id: String,
}

/// Everything that the file held at its last commit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    pub entries: HashMap<Key, Vec<u8>>,
    /// The registry's revision that the entries have reached.
    pub revision: u64,
    /// Which registry's history the revision belongs to.
    pub origin: String,
}

/// One change: all of it is read back, or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// None removes the entry.
    pub entries: HashMap<Key, Option<Vec<u8>>>,
    pub revision: u64,
    pub origin: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Decoded {
    pub saved: Saved,
    /// Up to and with the last commit; whatever is behind it is to be overwritten. 0 when not even the header is good.
    pub good_bytes: usize,
    /// What was left out, where not everything was good.
    pub damage: Option<Damage>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    #[error("not a snapshot file, or its header is damaged")]
    Header,
    #[error("written in format {0}, newer than this binary reads")]
    Version(u32),
    #[error("cut off or damaged at byte {at}; the state committed before it is used")]
    Record { at: usize },
    #[error("the last change was not finished when the process ended; the state before it is used")]
    Uncommitted,
}

/// The file's header and one batch with everything.
pub fn encode_whole(saved: &Saved) -> Vec<u8> {
    let mut bytes = header();
    for (key, value) in &saved.entries {
        push_put(&mut bytes, key, value);
    }
    push_commit(&mut bytes, saved.revision, &saved.origin);
    bytes
}

/// The records of one change, to be appended.
pub fn encode(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in &batch.entries {
        match value {
            Some(value) => push_put(&mut bytes, key, value),
            None => push_record(&mut bytes, &[&[REMOVE, key.kind], key.id.as_bytes()]),
        }
    }
    push_commit(&mut bytes, batch.revision, &batch.origin);
    bytes
}

pub(super) fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn push_put(bytes: &mut Vec<u8>, key: &Key, value: &[u8]) {
    let id_bytes = (key.id.len() as u32).to_le_bytes();
    push_record(
        bytes,
        &[&[PUT, key.kind], &id_bytes, key.id.as_bytes(), value],
    );
}

fn push_commit(bytes: &mut Vec<u8>, revision: u64, origin: &str) {
    push_record(
        bytes,
        &[&[COMMIT], &revision.to_le_bytes(), origin.as_bytes()],
    );
}

fn push_record(bytes: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = (length as u32).to_le_bytes();
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&length);
    parts.iter().for_each(|part| checksum.update(part));
    bytes.extend(length);
    bytes.extend(checksum.finalize().to_le_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
}

/// Reads a snapshot file up to its last whole commit. Any bytes give an answer.
pub fn decode(bytes: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    if let Err(damage) = check_header(bytes) {
        decoded.damage = Some(damage);
        return decoded;
    }
    decoded.good_bytes = HEADER_BYTES;
    let mut pending = HashMap::new();
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        let Some((record, next)) = record_at(bytes, at) else {
            decoded.damage = Some(Damage::Record { at });
            return decoded;
        };
        at = next;
        match record {
            Record::Put(key, value) => {
                pending.insert(key, Some(value));
            }
            Record::Remove(key) => {
                pending.insert(key, None);
            }
            Record::Commit(revision, origin) => {
                decoded.saved.commit(pending.drain(), revision, origin);
                decoded.good_bytes = at;
            }
            Record::Unknown => {}
        }
    }
    decoded.damage = (decoded.good_bytes < bytes.len()).then_some(Damage::Uncommitted);
    decoded
}

impl Saved {
    fn commit<'a>(
        &mut self,
        changes: impl Iterator<Item = ((u8, &'a str), Option<&'a [u8]>)>,
        revision: u64,
        origin: &str,
    ) {
        for ((kind, id), value) in changes {
            let key = Key {
                kind,
                id: id.to_owned(),
            };
            match value {
                Some(value) => self.entries.insert(key, value.to_vec()),
                None => self.entries.remove(&key),
            };
        }
        self.revision = revision;
        self.origin = origin.to_owned();
    }
}

enum Record<'a> {
    Put((u8, &'a str), &'a [u8]),
    Remove((u8, &'a str)),
    Commit(u64, &'a str),
    /// Written by a newer version; nothing that the entries need.
    Unknown,
}

fn check_header(bytes: &[u8]) -> Result<(), Damage> {
    let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(Damage::Header)?;
    let (content, checksum) = header.split_at(HEADER_BYTES - 4);
    if !content.starts_with(MAGIC) || checksum != crc32fast::hash(content).to_le_bytes() {
        return Err(Damage::Header);
    }
    match read_u32(&content[MAGIC.len()..]) {
        Some(VERSION) => Ok(()),
        version => Err(Damage::Version(version.unwrap_or_default())),
    }
}

/// The record that begins at this byte, and where the next one begins.
fn record_at(bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let frame = bytes.get(at..at + FRAME_BYTES)?;
    let (length, checksum) = frame.split_at(4);
    let payload_bytes = read_u32(length)? as usize;
    if payload_bytes > RECORD_BYTES_MAX {
        return None;
    }
    let end = at + FRAME_BYTES + payload_bytes;
    let payload = bytes.get(at + FRAME_BYTES..end)?;
    let mut expected = crc32fast::Hasher::new();
    expected.update(length);
    expected.update(payload);
    (checksum == expected.finalize().to_le_bytes()).then_some(())?;
    Some((parse(payload)?, end))
}

fn parse(payload: &[u8]) -> Option<Record<'_>> {
    let (tag, rest) = payload.split_first()?;
    match *tag {
        PUT => {
            let (kind, rest) = rest.split_first()?;
            let (id_bytes, rest) = rest.split_at_checked(4)?;
            let (id, value) = rest.split_at_checked(read_u32(id_bytes)? as usize)?;
            Some(Record::Put((*kind, std::str::from_utf8(id).ok()?), value))
        }
        REMOVE => {
            let (kind, id) = rest.split_first()?;
            Some(Record::Remove((*kind, std::str::from_utf8(id).ok()?)))
        }
        COMMIT => {
            let (revision, origin) = rest.split_first_chunk::<8>()?;
            Some(Record::Commit(
                u64::from_le_bytes(*revision),
                std::str::from_utf8(origin).ok()?,
            ))
        }
        _ => Some(Record::Unknown),
    }
}

fn read_u32(bytes: &[u8]) -> Option<u32> {
    bytes
        .first_chunk::<4>()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key {
            kind: 1,
            id: id.into(),
        }
    }

    fn batch(revision: u64, entries: &[(&str, Option<&str>)]) -> Batch {
        Batch {
            entries: entries
                .iter()
                .map(|(id, value)| (key(id), value.map(|value| value.as_bytes().to_vec())))
                .collect(),
            revision,
            origin: "registry-a".into(),
        }
    }

    fn saved(revision: u64, entries: &[(&str, &str)]) -> Saved {
        Saved {
            entries: entries
                .iter()
                .map(|(id, value)| (key(id), value.as_bytes().to_vec()))
                .collect(),
            revision,
            origin: "registry-a".into(),
        }
    }

    /// A file of three commits, with the length and the state at each.
    fn history() -> (Vec<u8>, Vec<(usize, Saved)>) {
        let states = [
            saved(7, &[("a", "1"), ("b", "2")]),
            saved(8, &[("a", "1"), ("b", "3"), ("ü", "")]),
            saved(9, &[("b", "3"), ("ü", "")]),
        ];
        let mut bytes = encode_whole(&states[0]);
        let mut commits = vec![
            (HEADER_BYTES, Saved::default()),
            (bytes.len(), states[0].clone()),
        ];
        let batches = [
            batch(8, &[("b", Some("3")), ("ü", Some(""))]),
            batch(9, &[("a", None)]),
        ];
        for (batch, state) in batches.iter().zip(&states[1..]) {
            bytes.extend(encode(batch));
            commits.push((bytes.len(), state.clone()));
        }
        (bytes, commits)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (bytes, commits) = history();
        let decoded = decode(&bytes);
        assert_eq!(
            decoded,
            Decoded {
                saved: commits[3].1.clone(),
                good_bytes: bytes.len(),
                damage: None
            }
        );
    }

    #[test]
    fn a_file_cut_at_any_byte_gives_the_last_commit_before_the_cut() {
        let (bytes, commits) = history();
        for cut in 0..bytes.len() {
            let decoded = decode(&bytes[..cut]);
            let last = commits.iter().rev().find(|(end, _)| *end <= cut);
            let (end, state) = last.cloned().unwrap_or_default();
            assert_eq!(
                (decoded.good_bytes, &decoded.saved),
                (end, &state),
                "cut at {cut}"
            );
            assert_eq!(
                decoded.damage.is_some(),
                cut != end || cut == 0,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed_and_nothing_wrong_is_read() {
        let (bytes, commits) = history();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let decoded = decode(&damaged);
                assert!(decoded.damage.is_some(), "byte {at} bit {bit}");
                let known = commits.iter().any(|(_, state)| *state == decoded.saved);
                assert!(known, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn records_of_a_newer_version_are_skipped() {
        let (mut bytes, commits) = history();
        push_record(&mut bytes, &[&[200], b"from the future"]);
        push_commit(&mut bytes, 9, "registry-a");
        assert_eq!(decode(&bytes).saved, commits[3].1);
        assert_eq!(decode(&bytes).damage, None);
    }

    #[test]
    fn a_newer_format_is_named_and_not_guessed_at() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(2u32.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(decode(&bytes).damage, Some(Damage::Version(2)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes: Vec<u8>) {
            let decoded = decode(&bytes);
            proptest::prop_assert!(decoded.good_bytes <= bytes.len());
            let mut behind_header = header();
            behind_header.extend(&bytes);
            decode(&behind_header);
        }
    }
}
