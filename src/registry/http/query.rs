//! The query string, strictly: what is not known, given twice or malformed is an error with its name.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::registry::Refusal;

/// The parameters of one request.
#[derive(Debug, Default)]
pub struct Query {
    values: BTreeMap<String, String>,
}

impl Query {
    pub fn parse(query: Option<&str>, allowed: &[&str]) -> Result<Self, Refusal> {
        let mut values = BTreeMap::new();
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name)?;
            if !allowed.contains(&name.as_str()) {
                let hint = match allowed {
                    [] => "this request takes none".to_owned(),
                    _ => format!("this request takes: {}", allowed.join(", ")),
                };
                return Err(
                    Refusal::invalid(format!("unknown query parameter {name:?}")).hint(hint),
                );
            }
            if values.insert(name.clone(), decode(value)?).is_some() {
                return Err(Refusal::invalid(format!(
                    "query parameter {name:?} is given twice"
                )));
            }
        }
        Ok(Self { values })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub fn number<N: FromStr>(&self, name: &str) -> Result<Option<N>, Refusal> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_| wrong(name, value, "a number such as 42"))
        };
        self.text(name).map(parse).transpose()
    }

    pub fn duration(&self, name: &str) -> Result<Option<Duration>, Refusal> {
        let parse = |value: &str| {
            duration(value).ok_or_else(|| wrong(name, value, "a duration such as 30s, 5m or 500ms"))
        };
        self.text(name).map(parse).transpose()
    }

    /// `?name`, `?name=true` or `?name=false`.
    pub fn flag(&self, name: &str) -> Result<bool, Refusal> {
        match self.values.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(value) => Err(wrong(name, value, "true or false")),
        }
    }
}

fn wrong(name: &str, value: &str, expected: &str) -> Refusal {
    Refusal::invalid(format!(
        "query parameter {name:?}: {value:?} is not {expected}"
    ))
}

pub fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| Refusal::invalid(format!("{text:?} is not UTF-8")))
}

/// A whole number and a unit; without a unit, seconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number)),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named() {
        let refused = Query::parse(Some("wiat=5m"), &["wait", "index"]).unwrap_err();
        assert!(refused.detail.message.contains("wiat"));
        assert!(refused.detail.hint.unwrap().contains("wait, index"));
        assert!(Query::parse(Some("a=1&a=2"), &["a"]).is_err());
    }

    #[test]
    fn values_are_decoded_and_typed() {
        let names = ["n", "d", "t", "f", "g"];
        let query = Query::parse(Some("n=42&d=5m&t=a%2Fb&f&g=false"), &names).unwrap();
        assert_eq!(query.number::<u64>("n").unwrap(), Some(42));
        assert_eq!(query.duration("d").unwrap(), Some(Duration::from_secs(300)));
        assert_eq!(query.text("t"), Some("a/b"));
        assert!(query.flag("f").unwrap() && !query.flag("g").unwrap());
        assert!(query.number::<u64>("t").is_err() && query.flag("n").is_err());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("7"), Some(Duration::from_secs(7)));
        for wrong in [
            "",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
