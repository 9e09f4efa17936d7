//! Which traffic lane a request names (full-link gray release), and that it goes on naming it.
//!
//! A header or a member of W3C `baggage` names the lane; applications pass one of them on, as they do for tracing, and each hop's
//! proxy reads it again. Where a service knows both, what a request lacks is added, so that an application that forwards baggage
//! alone keeps a lane that came in a header. Names are those that labels can have; others are no lane.

use super::head::Fields;
use crate::model::Gray;

const BAGGAGE: &[u8] = b"baggage";
/// As long as the value of a label may be in Kubernetes.
const NAME_BYTES_MAX: usize = 63;

/// The lane that a request names, if any.
pub fn lane<'f>(gray: &Gray, fields: &'f Fields) -> Option<&'f str> {
    of_header(gray, fields).or_else(|| of_baggage(gray, fields))
}

/// Has a request name its lane in both ways. Where they differ the header counts, as it does here, so that the next hop takes the
/// same lane, whichever of them its caller passes on.
#[cold]
pub fn carry(gray: &Gray, fields: &mut Fields) {
    let in_baggage = of_baggage(gray, fields);
    match (of_header(gray, fields), &gray.header, &gray.baggage) {
        (Some(lane), _, Some(key)) if in_baggage != Some(lane) => {
            let member = format!("{key}={lane}");
            name_in_baggage(key, &member, fields);
        }
        (None, Some(header), _) => {
            if let Some(lane) = in_baggage.map(str::to_owned) {
                fields.set(header.as_bytes(), lane.as_bytes());
            }
        }
        _ => {}
    }
}

/// In the place of what the baggage says under this key.
fn name_in_baggage(key: &str, member: &str, fields: &mut Fields) {
    let others = fields
        .find_all(BAGGAGE)
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|other| value_of(other, key.as_bytes()).is_none());
    let mut baggage: Vec<&[u8]> = others.map(<[u8]>::trim_ascii).collect();
    baggage.retain(|other| !other.is_empty());
    baggage.push(member.as_bytes());
    let baggage = baggage.join(&b","[..]);
    fields.set(BAGGAGE, &baggage);
}

fn of_header<'f>(gray: &Gray, fields: &'f Fields) -> Option<&'f str> {
    name(fields.find(gray.header.as_ref()?.as_bytes())?)
}

/// `key1=value1,key2=value2;property` (W3C Baggage, section 3.3).
fn of_baggage<'f>(gray: &Gray, fields: &'f Fields) -> Option<&'f str> {
    let key = gray.baggage.as_ref()?.as_bytes();
    let mut members = fields
        .find_all(BAGGAGE)
        .flat_map(|list| list.split(|byte| *byte == b','));
    members.find_map(|member| name(value_of(member, key)?))
}

/// The value of a member, if it is of this key.
fn value_of<'m>(member: &'m [u8], key: &[u8]) -> Option<&'m [u8]> {
    let pair = member.split(|byte| *byte == b';').next()?;
    let equals = memchr::memchr(b'=', pair)?;
    (pair[..equals].trim_ascii() == key).then(|| pair[equals + 1..].trim_ascii())
}

fn name(value: &[u8]) -> Option<&str> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let fits = (1..=NAME_BYTES_MAX).contains(&value.len()) && value.iter().all(is_plain);
    fits.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> Gray {
        Gray {
            header: Some("x-lane".into()),
            baggage: Some("lane".into()),
            label: "lane".into(),
        }
    }

    fn named(fields: &[(&str, &str)]) -> Option<String> {
        lane(&both(), &Fields::of(fields)).map(str::to_owned)
    }

    #[test]
    fn a_header_or_baggage_names_the_lane() {
        assert_eq!(named(&[("X-Lane", "blue")]).as_deref(), Some("blue"));
        let baggage = [("baggage", "a=1, lane = green ;meta=x,b=2")];
        assert_eq!(named(&baggage).as_deref(), Some("green"));
        let several = [("baggage", "a=1"), ("baggage", "lane=green")];
        assert_eq!(named(&several).as_deref(), Some("green"));
        let both = [("baggage", "lane=green"), ("x-lane", "blue")];
        assert_eq!(named(&both).as_deref(), Some("blue"));
    }

    #[test]
    fn what_no_label_can_be_is_no_lane() {
        for wrong in ["", "a b", "a%20b", "ü", "a,b", &"a".repeat(64)] {
            assert_eq!(named(&[("x-lane", wrong)]), None, "{wrong}");
        }
        assert_eq!(named(&[("baggage", "lane")]), None);
        assert_eq!(named(&[("baggage", "lanes=blue")]), None);
    }

    #[test]
    fn what_is_missing_is_added() {
        let carried = |fields: &[(&str, &str)]| {
            let mut fields = Fields::of(fields);
            carry(&both(), &mut fields);
            let mut out = Vec::new();
            fields.write_except(&[], &mut out);
            String::from_utf8(out).expect("ASCII")
        };
        assert_eq!(
            carried(&[("x-lane", "blue")]),
            "x-lane: blue\r\nbaggage: lane=blue\r\n"
        );
        assert_eq!(
            carried(&[("baggage", "a=1"), ("x-lane", "blue")]),
            "baggage: a=1,lane=blue\r\nx-lane: blue\r\n"
        );
        let differing = [("baggage", "lane=green;p, a=1"), ("x-lane", "blue")];
        assert_eq!(
            carried(&differing),
            "baggage: a=1,lane=blue\r\nx-lane: blue\r\n"
        );
        let named = "baggage: lane=blue\r\nx-lane: blue\r\n";
        assert_eq!(carried(&[("baggage", "lane=blue")]), named);
        assert_eq!(carried(&[("a", "b")]), "a: b\r\n");
    }
}
