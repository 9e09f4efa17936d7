//! Blanking out secrets in texts that are shown: values of keys that name a secret, the data of `kind: Secret`, and private keys in PEM.

use std::borrow::Cow;

/// What stands in a secret's place. A text that contains it is refused by apply: it was read, not written.
pub const BLANK: &str = "<redacted>";

const SECRET_KEYS: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "apikey",
    "private_key",
    "privatekey",
];

/// Works on lines, so it also works on YAML that does not parse.
pub fn redact(text: &str) -> Cow<'_, str> {
    let is_secret = text.lines().any(says_secret);
    let suspicious = |line: &str| {
        key_of(line).is_some_and(|(key, _)| is_secret_key(key)) || line.contains("PRIVATE KEY")
    };
    if !is_secret && !text.lines().any(suspicious) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut hiding = Hiding::Nothing;
    for line in text.split_inclusive('\n') {
        hiding = hiding.line(line, is_secret, &mut shown);
    }
    Cow::Owned(shown)
}

/// What the lines before make of the next.
#[derive(Clone, Copy)]
enum Hiding {
    Nothing,
    /// The column of a secret's key; lines that belong below it are its value.
    Deeper(usize),
    /// Up to the end of a PEM block.
    Pem,
    /// Up to the next document: what follows cannot be told apart by lines.
    Rest,
}

impl Hiding {
    fn line(self, line: &str, is_secret: bool, shown: &mut String) -> Self {
        let indent = line.len() - line.trim_start().len();
        match self {
            Self::Pem if line.contains("END") => Self::Nothing,
            Self::Pem => Self::Pem,
            Self::Rest if line.starts_with("---") => {
                shown.push_str(line);
                Self::Nothing
            }
            Self::Rest => Self::Rest,
            Self::Deeper(key) if line.trim().is_empty() || belongs_below(line, indent, key) => self,
            Self::Deeper(_) | Self::Nothing => Self::fresh(line, indent, is_secret, shown),
        }
    }

    fn fresh(line: &str, indent: usize, is_secret: bool, shown: &mut String) -> Self {
        if line.contains("PRIVATE KEY") {
            shown.push_str(&line[..indent]);
            shown.push_str(BLANK);
            shown.push('\n');
            return Self::Pem;
        }
        if is_secret && says_data_inside(line) {
            shown.push_str(BLANK);
            shown.push('\n');
            return Self::Rest;
        }
        let Some((key, value)) = key_of(line) else {
            shown.push_str(line);
            return Self::Nothing;
        };
        let hides = is_secret_key(key) || (is_secret && matches!(key, "data" | "stringData"));
        // A reference to a secret by name is not one: `secretRef:` with keys below it stays readable by its own keys.
        if !hides {
            shown.push_str(line);
            return Self::Nothing;
        }
        shown.push_str(&line[..line.len() - value.len()]);
        shown.push(' ');
        shown.push_str(BLANK);
        shown.push('\n');
        // Braces that go on say nothing by their columns.
        if value.matches(['{', '[']).count() > value.matches(['}', ']']).count() {
            return Self::Rest;
        }
        // In a list, what belongs to the value is deeper than the key, not than the dash before it.
        let column = line.len() - line.trim_start_matches([' ', '-', '\t']).len();
        Self::Deeper(column)
    }
}

/// `kind: Secret`, quoted or not, alone or among others in braces.
fn says_secret(line: &str) -> bool {
    let plain: String = line
        .chars()
        .filter(|character| !matches!(character, '"' | '\'' | ' ' | '\t'))
        .collect();
    plain.contains("kind:Secret")
}

/// Whether the data of a Secret begins on this line, but not with its first key.
fn says_data_inside(line: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|before: char| before.is_alphanumeric());
    let says = ["data:", "data\":", "data':", "stringData"]
        .iter()
        .any(|key| line.match_indices(key).any(|(at, _)| begins(at)));
    says && key_of(line).is_none_or(|(key, _)| !matches!(key, "data" | "stringData"))
}

/// Whether a line belongs to the value of a key in this column: it is deeper, or an item of a list, which YAML allows there.
fn belongs_below(line: &str, indent: usize, key: usize) -> bool {
    let item = line.trim();
    indent > key || (indent == key && (item == "-" || item.starts_with("- ")))
}

/// The key of a `key: value` line, and what follows the colon with its line end.
fn key_of(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(':')?;
    if !(value.is_empty() || value.starts_with([' ', '\n', '\r', '\t'])) {
        return None;
    }
    Some((
        key.trim_start_matches([' ', '-', '\t'])
            .trim_matches(['"', '\'']),
        value,
    ))
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.contains(&key.as_str())
        || key.ends_with("_password")
        || key.ends_with("_token")
        || key.ends_with("_secret")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_document_is_untouched() {
        let text = "kind: Service\nname: token-service\nports: [{port: 80}]\n";
        assert!(matches!(redact(text), Cow::Borrowed(same) if same == text));
    }

    #[test]
    fn values_of_secret_keys_are_blanked_with_everything_below_them() {
        let text = "a: 1\npassword: hunter2\nnested:\n  - token: |\n      line1\n\n      line2\n    after: 2\n";
        let shown = redact(text);
        assert_eq!(
            shown,
            "a: 1\npassword: <redacted>\nnested:\n  - token: <redacted>\n    after: 2\n"
        );
    }

    #[test]
    fn a_list_in_the_column_of_its_secret_key_is_blanked() {
        let text =
            "token:\n- one\n- two\nnested:\n  - secret:\n    - three\n  - name: kept\n---\nb: 1\n";
        assert_eq!(
            redact(text),
            "token: <redacted>\nnested:\n  - secret: <redacted>\n  - name: kept\n---\nb: 1\n"
        );
    }

    #[test]
    fn the_data_of_a_kubernetes_secret_and_private_keys_are_blanked() {
        let shown =
            redact("kind: Secret\nmetadata: {name: x}\ndata:\n  tls.key: AAAA\ntype: Opaque\n");
        assert_eq!(
            shown,
            "kind: Secret\nmetadata: {name: x}\ndata: <redacted>\ntype: Opaque\n"
        );
        for flow in [
            "{kind: Secret, name: x, data: {tls.key: AAAA}}\n---\nkind: Service\nname: x\n",
            "{\"kind\": \"Secret\", \"metadata\": {\"name\": \"x\"},\n \"stringData\": {\n\"a\": \"AAAA\"}}\n",
            "kind: 'Secret'\nname: x\nstringData: {a: AAAA,\n  b: AAAA}\n",
        ] {
            let shown = redact(flow);
            assert!(!shown.contains("AAAA"), "{shown}");
            assert_eq!(
                shown.contains("kind: Service"),
                flow.contains("kind: Service")
            );
        }
        let pem = "x: |\n  -----BEGIN EC PRIVATE KEY-----\n  AAAA\n  -----END EC PRIVATE KEY-----\ny: 1\n";
        assert_eq!(redact(pem), "x: |\n  <redacted>\ny: 1\n");
    }
}
