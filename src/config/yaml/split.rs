/// One document of a multi-document text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DocumentText<'t> {
    /// The document with the comments above it, without the `---` before it.
    pub text: &'t str,
    /// The line of the whole text, from 1, that is the document's first.
    pub first_line: u32,
    /// Where the document begins in the whole text, in bytes.
    pub offset: usize,
}

/// The documents of a text; those of nothing but comments are left out.
///
/// A line that begins with `---` is a boundary wherever it stands, as YAML allows no such line inside a document, not even in
/// a quoted text. So one broken document does not hide the others, and an unchanged one is known by its text alone.
pub fn split(text: &str) -> Vec<DocumentText<'_>> {
    let text_start = text.len() - text.trim_start_matches('\u{feff}').len();
    let mut documents = Vec::new();
    let mut start = Start {
        offset: text_start,
        line: 1,
    };
    let mut offset = text_start;
    for (index, line) in (1u32..).zip(text[text_start..].split_inclusive('\n')) {
        let after = Start {
            offset: offset + line.len(),
            line: index + 1,
        };
        if is_marker(line, "---") {
            push(&mut documents, text, &start, offset);
            // What follows the marker on its line belongs to the document: `--- {kind: Service}`.
            let inline = !line[3..].trim().is_empty();
            start = if inline {
                Start {
                    offset: offset + 3,
                    line: index,
                }
            } else {
                after
            };
        } else if is_marker(line, "...") {
            push(&mut documents, text, &start, offset);
            start = after;
        }
        offset += line.len();
    }
    push(&mut documents, text, &start, text.len());
    documents
}

#[derive(Clone, Copy)]
struct Start {
    offset: usize,
    line: u32,
}

fn is_marker(line: &str, marker: &str) -> bool {
    let rest = line.strip_prefix(marker);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '\r']))
}

fn push<'t>(documents: &mut Vec<DocumentText<'t>>, text: &'t str, start: &Start, end: usize) {
    let mut start = *start;
    // Blank lines above a document are not its own.
    while let Some(line) = text[start.offset..end].split_inclusive('\n').next()
        && line.trim().is_empty()
    {
        start = Start {
            offset: start.offset + line.len(),
            line: start.line + 1,
        };
    }
    let text = &text[start.offset..end];
    if text.lines().any(has_content) {
        documents.push(DocumentText {
            text,
            first_line: start.line,
            offset: start.offset,
        });
    }
}

/// Directives (`%YAML 1.2`) say nothing that matters here.
fn has_content(line: &str) -> bool {
    let line_start = line.trim_start();
    !line_start.is_empty() && !line_start.starts_with('#') && !line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(&str, u32)> {
        let documents = split(text);
        documents.iter().map(|d| (d.text, d.first_line)).collect()
    }

    #[test]
    fn documents_are_told_apart_by_their_markers() {
        assert_eq!(texts("a: 1\n---\nb: 2\n"), [("a: 1\n", 1), ("b: 2\n", 3)]);
        assert_eq!(
            texts("---\na: 1\n...\n---\nb: 2"),
            [("a: 1\n", 2), ("b: 2", 5)]
        );
        assert_eq!(
            texts("--- {a: 1}\n--- # two\nb: 2\r\n"),
            [(" {a: 1}\n", 1), (" # two\nb: 2\r\n", 2)]
        );
    }

    #[test]
    fn comments_and_directives_alone_are_no_document() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("# head\n---\n---\n# tail\n"), []);
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), [("a: 1\n", 3)]);
    }

    #[test]
    fn text_that_only_looks_like_a_marker_is_content() {
        assert_eq!(texts("a: |\n  ---\n ---\n"), [("a: |\n  ---\n ---\n", 1)]);
        assert_eq!(texts("\n \n\na: 1\n"), [("a: 1\n", 4)]);
        assert_eq!(texts("----\n"), [("----\n", 1)]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(texts("\u{feff}a: 1\n"), [("a: 1\n", 1)]);
    }
}
