//! Reading a field section: the lines between a first line, or a last chunk, and the empty line.

use smallvec::SmallVec;

use super::scan;
use crate::proxy::http::head::{Fields, Known, collides_with_trusted};

/// Why a field section is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FieldsError {
    Malformed(&'static str),
    TooMany,
}

/// A line that is not exactly `name: value\r\n`, such as one with more or fewer spaces; it is written anew.
struct Uneven {
    index: usize,
    name: (usize, usize),
    value: (usize, usize),
}

/// Reads the lines from `start` into `fields`, which are clear. Where the section ends behind its empty line; None when
/// it goes on beyond the buffer, and then the fields are of no use.
///
/// Names with underscores that imitate trusted ones are left out.
#[inline]
pub(super) fn read_fields(
    buf: &[u8],
    start: usize,
    fields_max: usize,
    fields: &mut Fields,
) -> Result<Option<usize>, FieldsError> {
    let mut uneven = SmallVec::<[Uneven; 4]>::new();
    let mut lines = 0;
    let mut at = start;
    loop {
        match buf.get(at) {
            None => return Ok(None),
            Some(b'\r') => break,
            Some(_) => {}
        }
        let Some(line) = read_line(buf, at)? else {
            return Ok(None);
        };
        lines += 1;
        if lines > fields_max {
            return Err(FieldsError::TooMany);
        }
        at = line.end;
        if line.imitates_trusted {
            continue;
        }
        let (name_start, name_end) = line.name;
        let (value_start, value_end) = line.value;
        if value_start != name_end + 2 || value_end + 2 != line.end || buf[name_end + 1] != b' ' {
            uneven.push(Uneven {
                index: fields.len(),
                name: line.name,
                value: line.value,
            });
        }
        fields.push_raw(
            line.known,
            name_start - start,
            name_end - name_start,
            value_end - value_start,
        );
    }
    match buf.get(at + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(FieldsError::Malformed("a CR stands without its LF")),
    }
    fields.append_section(&buf[start..at]);
    for line in &uneven {
        fields.rewrite(
            line.index,
            &buf[line.name.0..line.name.1],
            &buf[line.value.0..line.value.1],
        );
    }
    Ok(Some(at + 2))
}

/// Where the parts of a line lie in the buffer; the value is without the spaces around it.
struct Line {
    known: Known,
    imitates_trusted: bool,
    name: (usize, usize),
    value: (usize, usize),
    end: usize,
}

#[inline(always)]
fn read_line(buf: &[u8], start: usize) -> Result<Option<Line>, FieldsError> {
    let Some(name_end) = scan::colon(buf, start) else {
        return check_partial_name(&buf[start..]).map(|()| None);
    };
    let name = &buf[start..name_end];
    let known = Known::from_name(name);
    let imitates_trusted = known == Known::Other && check_other_name(name)?;
    let mut value_start = name_end + 1;
    while matches!(buf.get(value_start), Some(b' ' | b'\t')) {
        value_start += 1;
    }
    let Some(line_end) = scan::value_end(buf, value_start) else {
        return Ok(None);
    };
    match (buf[line_end], buf.get(line_end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) => return Ok(None),
        (found, _) => return Err(FieldsError::Malformed(why_no_value_byte(found))),
    }
    let mut value_end = line_end;
    while value_end > value_start && matches!(buf[value_end - 1], b' ' | b'\t') {
        value_end -= 1;
    }
    Ok(Some(Line {
        known,
        imitates_trusted,
        name: (start, name_end),
        value: (value_start, value_end),
        end: line_end + 2,
    }))
}

/// Whether a name that is not known imitates a trusted one; known names need no check of their bytes.
fn check_other_name(name: &[u8]) -> Result<bool, FieldsError> {
    if !scan::valid_name(name) {
        return Err(FieldsError::Malformed(why_no_name(name)));
    }
    Ok(collides_with_trusted(name))
}

/// A line whose colon has not come: what has come must be a name's beginning.
fn check_partial_name(name: &[u8]) -> Result<(), FieldsError> {
    if scan::valid_name(name) {
        return Ok(());
    }
    Err(FieldsError::Malformed(why_no_name(name)))
}

#[cold]
fn why_no_name(name: &[u8]) -> &'static str {
    match name {
        [] => "a field has no name",
        [b' ' | b'\t', ..] => "a field is folded over several lines",
        [.., b' ' | b'\t'] => "a space stands between a field's name and its colon",
        _ if name.contains(&b'\n') => "a field line has no colon",
        _ => "a field name has a byte that names cannot have",
    }
}

#[cold]
fn why_no_value_byte(found: u8) -> &'static str {
    match found {
        b'\r' => "a CR stands without its LF",
        b'\n' => "an LF stands without its CR",
        _ => "a field value has a control character in it",
    }
}
