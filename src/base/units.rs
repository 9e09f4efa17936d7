//! Quantities as people write them: durations, sizes, percentages.

use std::time::Duration;

/// Why a quantity could not be read; the text says what to write instead.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}; {hint}")]
pub struct UnitError {
    pub message: String,
    pub hint: &'static str,
}

const DURATION_PARTS_MAX: usize = 4;
const DURATION_DIGITS_MAX: usize = 5;

/// A duration in the form of the Gateway API: one to four of `12345h`, `5m`, `10s`, `250ms`, such as `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..DURATION_PARTS_MAX {
        let (part, after) = duration_part(rest).ok_or_else(|| not_a_duration(text))?;
        total += part;
        rest = after;
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(not_a_duration(text))
}

fn duration_part(text: &str) -> Option<(Duration, &str)> {
    let digits = digits_len(text);
    if digits == 0 || digits > DURATION_DIGITS_MAX {
        return None;
    }
    let number: u64 = text[..digits].parse().ok()?;
    let rest = &text[digits..];
    // `ms` before `m`: the longer unit wins.
    let units: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    units.iter().find_map(|(unit, millis)| {
        let after = rest.strip_prefix(unit)?;
        Some((Duration::from_millis(number * millis), after))
    })
}

fn not_a_duration(text: &str) -> UnitError {
    let hint = if !text.is_empty() && digits_len(text) == text.len() {
        "say the unit: ms, s, m or h"
    } else if text.contains('.') {
        "write whole numbers, such as 1s500ms"
    } else {
        "write it as 250ms, 10s, 1m30s or 2h, at most five digits and four parts"
    };
    UnitError {
        message: format!("`{text}` is not a duration"),
        hint,
    }
}

/// A duration in the form [`parse_duration`] reads; what is below a millisecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if millis >= size {
            text.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    text
}

/// A number of bytes: `4096`, `64KiB`, `10MB`, `1Gi`.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let digits = digits_len(text);
    let scale = match text[digits..].trim_start() {
        "" | "B" => Some(1),
        "kB" | "KB" | "k" => Some(1_000),
        "MB" | "M" => Some(1_000_000),
        "GB" | "G" => Some(1_000_000_000),
        "KiB" | "Ki" => Some(1 << 10),
        "MiB" | "Mi" => Some(1 << 20),
        "GiB" | "Gi" => Some(1 << 30),
        _ => None,
    };
    let number = text[..digits].parse::<u64>().ok();
    let bytes = number
        .zip(scale)
        .and_then(|(n, scale)| n.checked_mul(scale));
    bytes.ok_or_else(|| UnitError {
        message: format!("`{text}` is not a size"),
        hint: "write a whole number of bytes with a unit, such as 64KiB, 10MiB or 1GB",
    })
}

/// A percentage from 0 to 100, with or without its sign: `12.5%`, `20`.
pub fn parse_percent(text: &str) -> Result<f64, UnitError> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let percent = number.parse::<f64>().ok().filter(|p| plain && *p <= 100.0);
    percent.ok_or_else(|| UnitError {
        message: format!("`{text}` is not a percentage"),
        hint: "write 0% to 100%",
    })
}

fn digits_len(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_the_gateway_api_are_read() {
        let table = [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 359_996_400_000),
        ];
        for (text, millis) in table {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_a_hint() {
        for text in [
            "",
            "s",
            "10",
            "1.5s",
            "-1s",
            "100000s",
            "1s1s1s1s1s",
            "1d",
            "1s ",
            "1 s",
            "１s",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(
            parse_duration("10").unwrap_err().hint,
            "say the unit: ms, s, m or h"
        );
    }

    #[test]
    fn a_formatted_duration_reads_back() {
        for millis in [0, 1, 999, 1_000, 61_001, 3_600_000, 7_384_005] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        let table = [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("1 MiB", 1 << 20),
            ("10MB", 10_000_000),
            ("2Gi", 2 << 30),
        ];
        for (text, bytes) in table {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "KiB",
            "-1",
            "1.5MB",
            "1TBs",
            "99999999999999999999",
            "99999999999999GB",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_may_have_a_fraction_and_a_sign() {
        assert_eq!(parse_percent("12.5%"), Ok(12.5));
        assert_eq!(parse_percent("20"), Ok(20.0));
        for text in ["", "%", "101%", "-1%", "1e1%", "NaN", "inf", "1.2.3"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
