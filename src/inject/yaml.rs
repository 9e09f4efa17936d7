//! Kubernetes YAML to values and back.
//!
//! Kubernetes reads YAML 1.1, where `0644` is a number in base eight and `on` a switch. A tree of `config::yaml` keeps texts as they are
//! written; here they get the meaning that Kubernetes gives them, and a text that would get another one is written in quotes.

use std::fmt::Write;

use serde_yaml::{Mapping, Number, Value};

use crate::config::yaml::{self, Node};

/// What is at a path of keys.
pub fn at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| value.get(*key))
}

pub fn text_at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v str> {
    at(value, path)?.as_str()
}

/// A tree as Kubernetes understands it.
pub fn read(node: &Node<'_>) -> Value {
    match &node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Scalar { text, plain: true } => meaning(text),
        yaml::Value::Scalar { text, plain: false } => Value::String(text.to_string()),
        yaml::Value::Sequence(items) => items.iter().map(read).collect(),
        yaml::Value::Mapping(entries) => {
            let pairs = entries
                .iter()
                .map(|entry| (Value::from(&*entry.key), read(&entry.value)));
            Value::Mapping(pairs.collect())
        }
    }
}

/// What a text without quotes means.
fn meaning(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => {
            return true.into();
        }
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => {
            return false.into();
        }
        _ => {}
    }
    match number(text) {
        Some(number) => Value::Number(number),
        None => text.into(),
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.replace('_', "");
    let (negative, magnitude) = match digits.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    if !magnitude.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    match (integer(magnitude), negative) {
        (Some(number), false) => Some(number.into()),
        (Some(number), true) => Some(0i64.checked_sub_unsigned(number)?.into()),
        (None, _) => float(&digits).map(Number::from),
    }
}

/// Digits in base ten, or after `0x`, `0b`, `0o` or `0` in another.
fn integer(magnitude: &str) -> Option<u64> {
    let (digits, base) = match magnitude.get(..2) {
        Some("0x" | "0X") => (&magnitude[2..], 16),
        Some("0b" | "0B") => (&magnitude[2..], 2),
        Some("0o" | "0O") => (&magnitude[2..], 8),
        Some(_) if magnitude.starts_with('0') => (&magnitude[1..], 8),
        _ => (magnitude, 10),
    };
    let signed = digits.starts_with(['+', '-']);
    (!signed)
        .then(|| u64::from_str_radix(digits, base).ok())
        .flatten()
}

fn float(text: &str) -> Option<f64> {
    let numeric = |c: char| c.is_ascii_digit() || ".eE+-".contains(c);
    text.chars()
        .all(numeric)
        .then(|| text.parse().ok())
        .flatten()
}

/// One document in block style, as `kubectl` writes it; long or strange texts in quotes or as a block of lines.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

/// Begins at the start of a line and ends with a newline.
fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Mapping(entries) if !entries.is_empty() => mapping(out, entries, indent),
        Value::Sequence(items) if !items.is_empty() => sequence(out, items, indent),
        single => {
            scalar(out, single, indent);
            out.push('\n');
        }
    }
}

fn mapping(out: &mut String, entries: &Mapping, indent: usize) {
    for (index, (key, value)) in entries.iter().enumerate() {
        // The first entry of an item of a list stands behind its dash.
        if index > 0 || !out.ends_with("- ") {
            spaces(out, indent);
        }
        quoted(out, key.as_str().unwrap_or_default());
        out.push(':');
        match value {
            Value::Mapping(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, indent + 2);
            }
            Value::Sequence(items) if !items.is_empty() => {
                out.push('\n');
                sequence(out, items, indent);
            }
            single => {
                out.push(' ');
                scalar(out, single, indent + 2);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !out.ends_with("- ") {
            spaces(out, indent);
        }
        out.push_str("- ");
        block(out, item, indent + 2);
    }
}

fn scalar(out: &mut String, value: &Value, indent: usize) {
    // Writing to a String does not fail.
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(switch) => write!(out, "{switch}"),
        Value::Number(number) => write!(out, "{number}"),
        Value::String(text) => return self::text(out, text, indent),
        Value::Sequence(_) => write!(out, "[]"),
        Value::Mapping(_) => write!(out, "{{}}"),
        Value::Tagged(tagged) => return scalar(out, &tagged.value, indent),
    };
}

fn text(out: &mut String, text: &str, indent: usize) {
    match is_lines(text) {
        true => lines(out, text, indent),
        false => quoted(out, text),
    }
}

/// On one line, in quotes where it needs them.
fn quoted(out: &mut String, text: &str) {
    if is_plain(text) {
        out.push_str(text);
    } else if text.contains(['"', '\\']) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        out.push_str(&format!("'{}'", text.replace('\'', "''")));
    } else {
        // JSON's quotes are YAML's as well, and a text always has a JSON form.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// Whether a text means itself without quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./=+@$() ".contains(c);
    let (first, last) = (text.chars().next(), text.chars().next_back());
    let edges = first.is_some_and(|c| c.is_ascii_alphanumeric() || "/._".contains(c))
        && last.is_some_and(|c| c != ' ');
    // A colon only where it cannot begin a value, as in `http://` and `image:tag`.
    let colons = text
        .split(':')
        .skip(1)
        .all(|after| !after.is_empty() && !after.starts_with(' '));
    edges && colons && text.chars().all(|c| c == ':' || inner(c)) && is_text(text)
}

/// Whether no reader of YAML 1.1 takes it for something else, such as the base-sixty number `12:30` or a date.
fn is_text(text: &str) -> bool {
    let numeric = |c: char| c.is_ascii_digit() || "+-.:_".contains(c);
    meaning(text).is_string() && !text.chars().all(numeric) && text != "=" && !begins_as_date(text)
}

/// `2001-01-01`, or longer.
fn begins_as_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-'
}

/// Whether a text can be written line by line: several lines of printable characters, none beginning or ending in a blank.
fn is_lines(text: &str) -> bool {
    let printable = |c: char| c == '\n' || (' '..='~').contains(&c);
    text.trim_end_matches('\n').contains('\n')
        && text.chars().all(printable)
        && !text.starts_with([' ', '\n'])
        && text.lines().all(|line| !line.ends_with(' '))
        && !text.ends_with("\n\n")
}

fn lines(out: &mut String, text: &str, indent: usize) {
    out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            spaces(out, indent.max(2));
            out.push_str(line);
        }
    }
}

fn spaces(out: &mut String, count: usize) {
    out.extend(std::iter::repeat_n(' ', count));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Value {
        let (node, findings) = yaml::parse(text);
        assert!(findings.is_empty(), "{text}: {findings:?}");
        node.as_ref().map_or(Value::Null, read)
    }

    #[test]
    fn texts_mean_what_kubernetes_reads() {
        for (text, value) in [
            ("0644", Value::from(420)),
            ("0o644", Value::from(420)),
            ("0x1F", Value::from(31)),
            ("1_000", Value::from(1000)),
            ("-7", Value::from(-7)),
            ("0", Value::from(0)),
            ("18446744073709551615", Value::from(u64::MAX)),
            ("0.5", Value::from(0.5)),
            ("1e3", Value::from(1000.0)),
            ("on", Value::from(true)),
            ("n", Value::from(false)),
            ("08", Value::from(8.0)),
            ("1.2.3", Value::from("1.2.3")),
            ("100m", Value::from("100m")),
            ("--flag", Value::from("--flag")),
            ("'on'", Value::from("on")),
            ("\"0644\"", Value::from("0644")),
        ] {
            assert_eq!(parsed(text), value, "{text}");
        }
    }

    #[test]
    fn what_is_written_reads_back_as_it_was() {
        let texts = [
            "",
            "a",
            "on",
            "y",
            "0644",
            "1_000",
            "1e3",
            "0x1F",
            "12:30",
            "2001-01-01",
            "~",
            "null",
            "=",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "a:",
            ":a",
            "http://x:1/",
            "image:1",
            "[a]",
            "{a}",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "'a'",
            "\"a\"",
            "a\\b",
            " a",
            "a ",
            "a\n",
            "a\nb",
            "a\nb\n",
            "a\n\nb\n",
            "a\nb\n\n",
            "\na\nb",
            " a\nb",
            "a \nb",
            "a\tb",
            "grün",
            "\u{85}",
            "--flag=1,2",
            "$(POD_IP)",
            "{\"a\":\"b\"}",
            "a,b",
            "-",
            "---",
            "?",
            "? a",
            "a|b",
            "|",
            ">",
        ];
        let mut mapping = Mapping::new();
        for text in texts {
            let nested: Value = [("k".into(), Value::from(text))]
                .into_iter()
                .collect::<Mapping>()
                .into();
            let list = Value::Sequence(vec![
                text.into(),
                nested,
                Value::Sequence(vec![text.into(), Value::Null]),
            ]);
            mapping.insert(text.into(), list);
        }
        let empty = [
            ("list", Value::Sequence(Vec::new())),
            ("map", Mapping::new().into()),
            ("no", false.into()),
        ];
        mapping.extend(empty.map(|(key, value)| (key.into(), value)));
        // Keys of a tree are texts without what they mean, so what is written has to be quoted for that as well.
        let value = Value::Mapping(mapping);
        assert_eq!(parsed(&write(&value)), value, "{}", write(&value));
    }
}
