//! Reading the kernel's small files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// More of a file is not looked at.
const BYTES_MAX: u64 = 64 << 10;

/// The text of a file; None where there is none, or it is no text.
pub(super) fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The number that is all there is in a file.
pub(super) fn number<N: std::str::FromStr>(path: &Path) -> Option<N> {
    text(path)?.trim().parse().ok()
}

/// The number behind a name, such as `usage_usec 12` or `MemTotal: 12 kB`.
pub(super) fn named(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    let mut line = lines.find_map(|mut line| (line.next() == Some(name)).then_some(line))?;
    line.next()?.parse().ok()
}
