//! Kubernetes' `List`, as `kubectl get -o yaml` writes it: its items are documents like any other.
//!
//! What an item says stands in the lines and columns it stood in before, so that problems show their place in the file.

use std::borrow::Cow;

use super::yaml::{self, Mark, Node, Value};

/// One document of a text, or one item of a `List` there.
pub struct Part<'t> {
    pub text: Cow<'t, str>,
    /// The line of the whole text, from 1, that is the part's first.
    pub first_line: u32,
}

/// The documents of a text, with Lists taken apart. One that cannot be is left as it is, and is a document of an unknown kind.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for document in yaml::split(text) {
        match items(document.text) {
            Some(items) => parts.extend(items.into_iter().map(|(line, text)| Part {
                text: Cow::Owned(text),
                first_line: document.first_line + line - 1,
            })),
            None => parts.push(Part {
                text: Cow::Borrowed(document.text),
                first_line: document.first_line,
            }),
        }
    }
    parts
}

/// Each item's first line in the document, and its text.
fn items(text: &str) -> Option<Vec<(u32, String)>> {
    // Hardly a document is one, and reading it twice would be felt.
    if !text.contains("List") {
        return None;
    }
    let (root, findings) = yaml::parse(text);
    let root = root.filter(|_| findings.is_empty())?;
    let Value::Mapping(entries) = &root.value else {
        return None;
    };
    let value = |key: &str| {
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.value.value)
    };
    let is_list = matches!(value("kind"), Some(Value::Scalar { text, .. }) if text == "List");
    let Some(Value::Sequence(items)) = value("items").filter(|_| is_list) else {
        return None;
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    items.iter().map(|item| cut(&lines, item)).collect()
}

fn cut(lines: &[&str], item: &Node<'_>) -> Option<(u32, String)> {
    let Mark { line, column } = item.mark;
    let first = lines.get(line.checked_sub(1)? as usize)?;
    let begins = first.char_indices().nth(column.checked_sub(1)? as usize)?.0;
    let mut text = " ".repeat(column as usize - 1);
    if item.end.line == line {
        let ends = first
            .char_indices()
            .nth(item.end.column.saturating_sub(1) as usize);
        text += &first[begins..ends.map_or(first.len(), |(at, _)| at)];
        return Some((line, text));
    }
    text += &first[begins..];
    for middle in lines.get(line as usize..item.end.line as usize - 1)? {
        text += middle;
    }
    if let Some(last) = lines.get(item.end.line as usize - 1) {
        let ends = last
            .char_indices()
            .nth(item.end.column.saturating_sub(1) as usize);
        text += &last[..ends.map_or(last.len(), |(at, _)| at)];
    }
    Some((line, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(u32, String)> {
        let parts = parts(text).into_iter();
        parts
            .map(|part| (part.first_line, part.text.into_owned()))
            .collect()
    }

    #[test]
    fn items_keep_their_lines_and_columns() {
        let text = "kind: Service\nname: a\n---\napiVersion: v1\nitems:\n- kind: Service\n  name: b\n  ports: []\n- name: c\n  kind: Service\nkind: List\nmetadata: {}\n";
        let told = told(text);
        assert_eq!(told[0], (1, "kind: Service\nname: a\n".to_owned()));
        assert_eq!(
            told[1],
            (6, "  kind: Service\n  name: b\n  ports: []\n".to_owned())
        );
        assert_eq!(
            (told[2].0, told[2].1.trim_end()),
            (9, "  name: c\n  kind: Service")
        );
        assert_eq!(told.len(), 3);
    }

    #[test]
    fn json_is_taken_apart_too() {
        let text = "{\"kind\": \"List\", \"items\": [{\"kind\": \"Service\", \"name\": \"a\"}, {\"kind\":\n \"Service\",\n \"name\": \"b\"}]}";
        let told = told(text);
        assert_eq!(
            told[0],
            (
                1,
                format!(
                    "{}{{\"kind\": \"Service\", \"name\": \"a\"}}",
                    " ".repeat(27)
                )
            )
        );
        assert_eq!(told[1].0, 1);
        assert!(
            told[1]
                .1
                .ends_with("{\"kind\":\n \"Service\",\n \"name\": \"b\"}"),
            "{}",
            told[1].1
        );
    }

    #[test]
    fn what_is_no_list_stays_whole() {
        for text in [
            "kind: List\nitems: {}\n",
            "kind: List\nitems: [\n",
            "kind: ListOfThings\nitems: [a]\n",
        ] {
            assert_eq!(told(text), [(1, text.to_owned())]);
        }
        assert!(told("kind: List\nitems: []\n").is_empty());
    }
}
