//! Reading a field section: the lines between a first line, or a last chunk, and the empty line.

use std::ops::Range;

use smallvec::SmallVec;

use crate::proxy::http::head::{Fields, Known, collides_with_trusted, scan};

/// Why a field section is not one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FieldsError {
    Malformed(&'static str),
    TooMany,
}

/// A line that is not exactly `name: value\r\n`, such as one with more or fewer spaces; it is written anew.
struct Uneven {
    index: usize,
    name: Range<usize>,
    /// What stands between colon and CR.
    spaced: Range<usize>,
}

/// Reads the lines from `start` into `fields`, which are clear. Where the section ends behind its empty line; None when
/// it goes on beyond the buffer. The fields are those of a whole section, or none.
///
/// Names with underscores that imitate trusted ones are left out.
#[inline]
pub(super) fn read_fields(
    buf: &[u8],
    start: usize,
    fields_max: usize,
    fields: &mut Fields,
) -> Result<Option<usize>, FieldsError> {
    let read = read_lines(buf, start, fields_max, fields);
    if !matches!(read, Ok(Some(_))) {
        // Their bytes are copied at the end of the section only.
        fields.clear();
    }
    read
}

#[inline]
fn read_lines(
    buf: &[u8],
    start: usize,
    fields_max: usize,
    fields: &mut Fields,
) -> Result<Option<usize>, FieldsError> {
    let mut uneven = SmallVec::<[Uneven; 4]>::new();
    let mut at = start;
    loop {
        match buf.get(at) {
            None => return Ok(None),
            Some(b'\r') => break,
            Some(_) => {}
        }
        let Some(name_end) = scan::colon(buf, at) else {
            return check_partial_name(&buf[at..]).map(|()| None);
        };
        let name = &buf[at..name_end];
        let known = Known::from_name(name);
        let imitates_trusted = known == Known::Other && check_other_name(name)?;
        let Some(line_end) = scan::value_end(buf, name_end + 1) else {
            return Ok(None);
        };
        if buf[line_end..].first_chunk() != Some(b"\r\n") {
            return check_line_end(&buf[line_end..]).map(|()| None);
        }
        if !imitates_trusted {
            if fields.len() == fields_max {
                return Err(FieldsError::TooMany);
            }
            let spaced = name_end + 1..line_end;
            if !is_even(&buf[spaced.clone()]) {
                uneven.push(Uneven {
                    index: fields.len(),
                    name: at..name_end,
                    spaced: spaced.clone(),
                });
            }
            let value_len = spaced.len().saturating_sub(1);
            fields.push_raw(known, at - start, name_end - at, value_len);
        }
        at = line_end + 2;
    }
    match buf.get(at + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(FieldsError::Malformed("a CR stands without its LF")),
    }
    fields.append_section(&buf[start..at]);
    for line in uneven {
        fields.rewrite(line.index, &buf[line.name], trim(&buf[line.spaced]));
    }
    Ok(Some(at + 2))
}

/// Whether what stands between colon and CR is one space and a value without spaces around it.
#[inline(always)]
fn is_even(spaced: &[u8]) -> bool {
    matches!(spaced, [b' ', value @ ..] if value.first() > Some(&b' ') && value.last() > Some(&b' '))
}

/// Without the spaces and tabs around it.
fn trim(spaced: &[u8]) -> &[u8] {
    let is_visible = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = spaced.iter().position(is_visible) else {
        return &[];
    };
    let end = spaced.iter().rposition(is_visible).unwrap_or(start);
    &spaced[start..=end]
}

/// Whether a name that is not known imitates a trusted one; known names need no check of their bytes.
#[inline(always)]
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

/// A value has ended, but not with CR and LF: only the LF may still be to come.
#[cold]
fn check_line_end(rest: &[u8]) -> Result<(), FieldsError> {
    Err(FieldsError::Malformed(match rest {
        [b'\r'] => return Ok(()),
        [b'\r', ..] => "a CR stands without its LF",
        [b'\n', ..] => "an LF stands without its CR",
        _ => "a field value has a control character in it",
    }))
}
