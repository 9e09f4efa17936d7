use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::{DEPTH_MAX, DOCUMENT_BYTES_MAX, Entry, Mark, NODES_MAX, Node, Value};
use crate::config::problem::{FINDINGS_MAX, Finding, Spot};

/// Reads one document. None where it cannot be read at all; the findings say why.
///
/// Aliases are expanded (within [`NODES_MAX`]) and `<<` merges mappings; a key that is written twice is a finding, and its first
/// value counts.
pub fn parse(text: &str) -> (Option<Node<'_>>, Vec<Finding>) {
    if text.len() > DOCUMENT_BYTES_MAX {
        let message = format!("a document of {} bytes is too long", text.len());
        let hint = format!("split it; at most {DOCUMENT_BYTES_MAX} bytes are read");
        return (None, vec![Finding::error(Spot::default(), message, hint)]);
    }
    let mut builder = Builder {
        events: Parser::new_from_str(text),
        findings: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let root = match builder.document() {
        Ok(root) => root,
        Err(fatal) => {
            builder.findings.push(fatal);
            None
        }
    };
    (root, builder.findings)
}

struct Builder<'t> {
    events: Parser<'t, StrInput<'t>>,
    findings: Vec<Finding>,
    /// What an anchor stands for, and how many nodes that is.
    anchors: HashMap<usize, (Node<'t>, usize)>,
    nodes: usize,
}

/// What ends the reading of the document.
type Fatal = Finding;

impl<'t> Builder<'t> {
    fn document(&mut self) -> Result<Option<Node<'t>>, Fatal> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (event, span) => {
                    let root = self.node(event, span, 0)?;
                    self.expect_end()?;
                    return Ok(Some(root));
                }
            }
        }
    }

    /// The text was split at its markers already, so a second document means broken YAML.
    fn expect_end(&mut self) -> Result<(), Fatal> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentEnd | Event::Nothing, _) => {}
                (_, span) => {
                    let hint = "begin a new document with a line `---`";
                    return Err(fatal(
                        span,
                        "unexpected text after the document's end",
                        hint,
                    ));
                }
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Fatal> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node<'t>, Fatal> {
        if depth > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(fatal(span, &message, "flatten the document"));
        }
        let nodes_before = self.nodes;
        self.count(1, span)?;
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                (self.scalar(text, style, tag.as_deref(), span), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], span);
                (self.sequence(span, depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], span);
                (self.mapping(span, depth)?, anchor)
            }
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(fatal(span, "unexpected end of the document", "")),
        };
        if anchor != 0 {
            let weight = self.nodes - nodes_before;
            self.anchors.insert(anchor, (node.clone(), weight));
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Fatal> {
        self.nodes += nodes;
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("the document has more than {NODES_MAX} nodes");
        Err(fatal(span, &message, "split it, or use fewer aliases"))
    }

    fn scalar(
        &mut self,
        text: Cow<'t, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Node<'t> {
        self.check_tag(tag, &["str", "int", "float", "bool", "null"], span);
        let tagged_text = tag.is_some_and(|tag| tag.suffix == "str");
        let plain = style == ScalarStyle::Plain && !tagged_text;
        let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        let value = if null {
            Value::Null
        } else {
            Value::Scalar { text, plain }
        };
        Node {
            value,
            mark: mark(span.start),
            end: mark(span.end),
        }
    }

    fn check_tag(&mut self, tag: Option<&Tag>, allowed: &[&str], span: Span) {
        let Some(tag) = tag else { return };
        if !(tag.is_yaml_core_schema() && allowed.contains(&tag.suffix.as_str())) {
            let message = format!("the tag `{tag}` means nothing here");
            self.report(fatal(span, &message, "leave it out"));
        }
    }

    fn sequence(&mut self, start: Span, depth: usize) -> Result<Node<'t>, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    return Ok(Node {
                        value: Value::Sequence(items),
                        mark: mark(start.start),
                        end: mark(end.end),
                    });
                }
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, start: Span, depth: usize) -> Result<Node<'t>, Fatal> {
        let mut entries = Entries::default();
        let mut merges = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, end) => {
                    entries.merge(merges);
                    return Ok(Node {
                        value: Value::Mapping(entries.list),
                        mark: mark(start.start),
                        end: mark(end.end),
                    });
                }
                (event, span) => self.node(event, span, depth + 1)?,
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth + 1)?;
            self.entry(key, value, &mut entries, &mut merges);
        }
    }

    fn entry(
        &mut self,
        key: Node<'t>,
        value: Node<'t>,
        entries: &mut Entries<'t>,
        merges: &mut Vec<Node<'t>>,
    ) {
        let spot = Spot {
            mark: key.mark,
            end: key.end,
            path: String::new(),
        };
        let name = match key.value {
            Value::Scalar { text, plain: true } if text == "<<" => return merges.push(value),
            Value::Scalar { text, .. } => text,
            Value::Null => Cow::Borrowed("null"),
            Value::Sequence(_) | Value::Mapping(_) => {
                let finding = Finding::error(spot, "a key must be a single value", "quote it");
                return self.report(finding);
            }
        };
        let entry = Entry {
            key: name,
            key_mark: key.mark,
            key_end: key.end,
            value,
        };
        if let Err((key, first)) = entries.insert(entry) {
            let message = format!("the key `{key}` is written twice");
            let hint = match spot.mark.line.saturating_sub(first.line) {
                0 => "the first is on the same line".to_owned(),
                1 => "the first is a line above".to_owned(),
                lines => format!("the first is {lines} lines above"),
            };
            self.report(Finding::error(spot, message, hint));
        }
    }

    fn report(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Node<'t>, Fatal> {
        let Some((_, weight)) = self.anchors.get(&anchor) else {
            // Such as `a: &x [*x]`: the anchor's own value is not complete yet.
            return Err(fatal(span, "an alias inside of what it stands for", ""));
        };
        self.count(*weight, span)?;
        Ok(self.anchors[&anchor].0.clone())
    }
}

/// The entries of a mapping; beyond a few, their keys are found by hash.
#[derive(Default)]
struct Entries<'t> {
    list: Vec<Entry<'t>>,
    index: HashMap<Cow<'t, str>, usize>,
}

const SEARCHED_IN_ORDER_MAX: usize = 16;

impl<'t> Entries<'t> {
    fn position(&self, key: &str) -> Option<usize> {
        if self.list.len() <= SEARCHED_IN_ORDER_MAX {
            return self.list.iter().position(|entry| entry.key == key);
        }
        self.index.get(key).copied()
    }

    /// Gives the key back with the place where it is already.
    fn insert(&mut self, entry: Entry<'t>) -> Result<(), (Cow<'t, str>, Mark)> {
        if let Some(first) = self.position(&entry.key) {
            return Err((entry.key, self.list[first].key_mark));
        }
        self.list.push(entry);
        match self.list.len() - 1 {
            last @ SEARCHED_IN_ORDER_MAX => {
                let keys = self.list.iter().map(|entry| entry.key.clone());
                self.index = keys.zip(0..=last).collect();
            }
            last if last > SEARCHED_IN_ORDER_MAX => {
                self.index.insert(self.list[last].key.clone(), last);
            }
            _ => {}
        }
        Ok(())
    }

    /// `<<: *base`: keys that are not written here come from the merged mappings, the earlier first.
    fn merge(&mut self, merges: Vec<Node<'t>>) {
        for merged in merges {
            match merged.value {
                Value::Mapping(entries) => {
                    for entry in entries {
                        // A key that is here already wins over the merged one.
                        let _ = self.insert(entry);
                    }
                }
                Value::Sequence(items) => self.merge(items),
                Value::Null | Value::Scalar { .. } => {}
            }
        }
    }
}

fn syntax(error: &ScanError) -> Finding {
    let place = *error.marker();
    let span = Span::new(place, place);
    fatal(
        span,
        &format!("not YAML: {}", error.info()),
        syntax_hint(error.info()),
    )
}

fn syntax_hint(info: &str) -> &'static str {
    if info.contains("tab") {
        "indent with spaces"
    } else if info.contains("mapping values are not allowed") || info.contains("simple key") {
        "check the indentation, and quote a text that has `: ` in it"
    } else if info.contains("anchor") {
        "an alias needs an anchor above it in the same document"
    } else {
        "check the indentation, the brackets and the quotes around here"
    }
}

fn fatal(span: Span, message: &str, hint: &str) -> Finding {
    let spot = Spot {
        mark: mark(span.start),
        end: mark(span.end),
        path: String::new(),
    };
    Finding::error(spot, message, hint)
}

fn mark(marker: Marker) -> Mark {
    Mark {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX),
        column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node<'_> {
        let (node, findings) = parse(text);
        assert_eq!(findings, [], "{text}");
        node.unwrap()
    }

    fn messages(text: &str) -> Vec<String> {
        let (_, findings) = parse(text);
        let lines = findings
            .iter()
            .map(|f| format!("{}:{} {}", f.spot.mark.line, f.spot.mark.column, f.message));
        lines.collect()
    }

    #[test]
    fn every_node_knows_its_place() {
        let root = tree("name: cart\nports:\n  - port: 80\n");
        let Value::Sequence(ports) = &root.get("ports").unwrap().value else {
            panic!("a list");
        };
        let port = ports[0].get("port").unwrap();
        assert_eq!(
            (port.mark, port.end),
            (
                Mark {
                    line: 3,
                    column: 11
                },
                Mark {
                    line: 3,
                    column: 13
                }
            )
        );
        assert_eq!(port.text(), Some("80"));
    }

    #[test]
    fn null_is_what_is_left_out_and_quotes_make_text() {
        let root = tree("a:\nb: ~\nc: null\nd: 'null'\ne: ''\nf: !!str null\n");
        for key in ["a", "b", "c"] {
            assert_eq!(root.get(key).unwrap().value, Value::Null, "{key}");
        }
        assert_eq!(root.get("d").unwrap().text(), Some("null"));
        assert_eq!(root.get("e").unwrap().text(), Some(""));
        assert_eq!(root.get("f").unwrap().text(), Some("null"));
    }

    #[test]
    fn aliases_and_merges_are_expanded() {
        let root = tree("base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nsame: *b\n");
        let merged = root.get("use").unwrap();
        assert_eq!(merged.get("x").unwrap().text(), Some("1"));
        assert_eq!(merged.get("y").unwrap().text(), Some("3"));
        assert_eq!(root.get("same"), root.get("base"));
    }

    #[test]
    fn a_key_written_twice_is_a_problem_with_its_place() {
        assert_eq!(
            messages("a: 1\nb: {c: 1, c: 2}\na: 2\n"),
            [
                "2:11 the key `c` is written twice",
                "3:1 the key `a` is written twice",
            ]
        );
        let many: String = (0..40).map(|i| format!("k{i}: 1\n")).collect();
        assert_eq!(messages(&format!("{many}k39: 2\nk3: 2\n")).len(), 2);
    }

    #[test]
    fn broken_yaml_is_a_problem_with_a_place() {
        for text in [
            "a: [1, 2",
            "a: 'x",
            "a: b: c",
            "a:\n\t- 1",
            "*x",
            "a: &x [*x]",
            "? [a]\n: 1",
            "a: !env X",
        ] {
            assert!(!messages(text).is_empty(), "{text}");
        }
        assert!(messages("a: 1\nb: [1, 2\nc: 3\n")[0].starts_with("3:"));
    }

    #[test]
    fn nesting_is_bounded() {
        let text = format!("{}{}", "[".repeat(100), "]".repeat(100));
        assert!(messages(&text)[0].contains("nested deeper than 64"));
        let deep = "[".repeat(1_000_000);
        assert_eq!(messages(&deep).len(), 1);
    }

    #[test]
    fn a_billion_laughs_are_not_laughed() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let inner = format!("*a{}", level - 1);
            let list = vec![inner; 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(messages(&text)[0].contains("more than 1000000 nodes"));
    }
}
