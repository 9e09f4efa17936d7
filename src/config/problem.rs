//! What is wrong with a configuration: where, what, and what to do about it.
//!
//! Readers collect [`Finding`]s, which know their place inside one document; [`Problem`]s know the file too and are
//! what users see: as text in the style of a compiler, or as JSON.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::yaml::Mark;

/// One thing to tell the user, with its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub severity: Severity,
    /// The file as it was named, or what else the text came from: `registry HTTPRoute default/cart`, `environment`.
    pub file: String,
    /// From 1; 0 where there is no text, such as for a file that cannot be read.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// The key's path in its document, such as `rules[2].retry.attempts`; empty for the document itself.
    pub path: String,
    pub message: String,
    /// Of the condition that a document's status then has false, such as `BackendNotFound`; see [`Problem::stands_against`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snippet: Option<Snippet>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The documents are not applied, or, where a condition tells what is wrong, not all of them has an effect.
    Error,
    /// They are, but probably do not mean what was meant.
    Warning,
    /// For information.
    Note,
}

/// Most findings of one document; what is wrong in more places is wrong in the same way.
pub const FINDINGS_MAX: usize = 500;

/// Most problems that are shown at once.
pub const PROBLEMS_MAX: usize = 1_000;

/// The line of text a problem is in, and how much of it to underline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Snippet {
    pub text: String,
    /// In characters, from 1.
    pub from: u32,
    pub length: u32,
}

/// Longer lines are cut around the place.
const SNIPPET_LENGTH_MAX: usize = 160;

impl Problem {
    /// A problem of a whole file, without a place in it.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>, hint: &str) -> Self {
        Self {
            severity: Severity::Error,
            file: file.into(),
            line: 0,
            column: 0,
            path: String::new(),
            message: message.into(),
            reason: None,
            hint: Some(hint.to_owned()).filter(|hint| !hint.is_empty()),
            snippet: None,
        }
    }

    /// Whether the documents cannot be put into effect. Where a condition tells what is wrong, they can, and the standard says what
    /// becomes of the part that is.
    pub fn stands_against(&self) -> bool {
        self.is_error() && self.reason.is_none()
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Puts problems in the order they are shown in, by file and place; beyond [`PROBLEMS_MAX`] they are only counted.
    pub fn arrange(problems: &mut Vec<Problem>) {
        problems.sort_by(|a, b| a.order().cmp(&b.order()));
        problems.dedup();
        if problems.len() <= PROBLEMS_MAX {
            return;
        }
        // Errors must not be what is cut off.
        problems.sort_by_key(|problem| problem.severity);
        let more = problems.split_off(PROBLEMS_MAX);
        let severity = more.iter().map(|problem| problem.severity).min();
        problems.sort_by(|a, b| a.order().cmp(&b.order()));
        let message = format!("{} more problems are not shown", more.len());
        problems.push(Problem {
            severity: severity.unwrap_or(Severity::Note),
            ..Problem::of_file(more[0].file.clone(), message, "solve those above first")
        });
    }

    fn order(&self) -> (&str, u32, u32, Severity, &str, &str) {
        (
            &self.file,
            self.line,
            self.column,
            self.severity,
            &self.path,
            &self.message,
        )
    }
}

/// `mesh.yaml:14:9 rules[2].retry.attempts: 0 means never send; did you mean 1?`
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head(f, &Style::PLAIN)
    }
}

impl Problem {
    fn head(&self, f: &mut dyn Write, style: &Style) -> fmt::Result {
        write!(f, "{}{}", style.bold, self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, "{}", style.reset)?;
        match self.severity {
            Severity::Error if self.path.is_empty() => write!(f, ":")?,
            Severity::Error => {}
            Severity::Warning => write!(f, " {}warning{}:", style.warning, style.reset)?,
            Severity::Note => write!(f, " {}note{}:", style.note, style.reset)?,
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(
            f,
            " {}{}{}",
            style.message(self.severity),
            self.message,
            style.reset
        )?;
        if let Some(reason) = &self.reason {
            write!(f, " [{reason}]")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }

    fn render_snippet(&self, f: &mut dyn Write, style: &Style) -> fmt::Result {
        let Some(snippet) = &self.snippet else {
            return Ok(());
        };
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(snippet.from.saturating_sub(1) as usize);
        let carets = "^".repeat(snippet.length.max(1) as usize);
        let (rail, reset, mark) = (style.rail, style.reset, style.mark(self.severity));
        writeln!(f, " {rail}{margin} |{reset}")?;
        writeln!(f, " {rail}{number} |{reset} {}", snippet.text)?;
        writeln!(f, " {rail}{margin} |{reset} {indent}{mark}{carets}{reset}")
    }
}

/// All problems as text: a line each, and the place in its text underlined.
pub fn render(problems: &[Problem], colour: bool) -> String {
    let style = if colour {
        &Style::COLOUR
    } else {
        &Style::PLAIN
    };
    let mut text = String::new();
    for problem in problems {
        // Writing to a String does not fail.
        let _ = problem.head(&mut text, style);
        text.push('\n');
        let _ = problem.render_snippet(&mut text, style);
    }
    text
}

/// Escape sequences around the parts of a rendered problem; all empty without colour.
struct Style {
    bold: &'static str,
    error: &'static str,
    warning: &'static str,
    note: &'static str,
    rail: &'static str,
    reset: &'static str,
}

impl Style {
    const PLAIN: Style = Style {
        bold: "",
        error: "",
        warning: "",
        note: "",
        rail: "",
        reset: "",
    };
    const COLOUR: Style = Style {
        bold: "\x1b[1m",
        error: "\x1b[1;31m",
        warning: "\x1b[1;33m",
        note: "\x1b[1;36m",
        rail: "\x1b[34m",
        reset: "\x1b[0m",
    };

    fn mark(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Error => self.error,
            Severity::Warning => self.warning,
            Severity::Note => self.note,
        }
    }

    fn message(&self, severity: Severity) -> &'static str {
        match severity {
            Severity::Error => self.error,
            Severity::Warning | Severity::Note => self.bold,
        }
    }
}

/// A place in a document and the path of the key there; without an `end`, its text is not shown.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spot {
    pub mark: Mark,
    pub end: Mark,
    pub path: String,
}

/// A problem as it is found: its place is relative to its document, which may stand anywhere in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub severity: Severity,
    pub spot: Spot,
    pub message: String,
    /// As [`Problem::reason`].
    pub reason: Option<&'static str>,
    pub hint: Option<String>,
}

impl Finding {
    pub fn error(spot: Spot, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Error, spot, message, hint)
    }

    pub fn warning(spot: Spot, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Warning, spot, message, hint)
    }

    pub fn note(spot: Spot, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Severity::Note, spot, message, hint)
    }

    /// What makes a condition of the document's status false: an error, but the rest of the document is in effect.
    pub fn unmet(
        spot: Spot,
        reason: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            reason: Some(reason),
            ..Self::error(spot, message, hint)
        }
    }

    /// For a text that holds secrets.
    pub fn show_no_text(&mut self) {
        self.spot.end = Mark::default();
    }

    fn new(
        severity: Severity,
        spot: Spot,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            spot,
            reason: None,
            message: message.into(),
            hint: Some(hint.into()).filter(|hint| !hint.is_empty()),
        }
    }
}

/// A document's text at its place in a file, for showing where a finding is.
pub struct Page<'t> {
    /// What problems call the file.
    pub file: Arc<str>,
    /// The file's line, from 1, that is the document's first.
    pub first_line: u32,
    pub text: Cow<'t, str>,
    /// Where each line begins, found when the first problem is shown.
    lines: OnceCell<Vec<usize>>,
}

impl<'t> Page<'t> {
    pub fn new(file: impl Into<Arc<str>>, first_line: u32, text: impl Into<Cow<'t, str>>) -> Self {
        Self {
            file: file.into(),
            first_line,
            text: text.into(),
            lines: OnceCell::new(),
        }
    }

    /// The problem that a finding of this document is.
    pub fn problem(&self, finding: &Finding) -> Problem {
        let mark = finding.spot.mark;
        Problem {
            severity: finding.severity,
            file: self.file.to_string(),
            line: self.line(mark),
            column: mark.column,
            path: finding.spot.path.clone(),
            message: finding.message.clone(),
            reason: finding.reason.map(str::to_owned),
            hint: finding.hint.clone(),
            snippet: self.snippet(mark, finding.spot.end),
        }
    }

    /// The file's line of a place in the document.
    pub fn line(&self, mark: Mark) -> u32 {
        self.first_line + mark.line.saturating_sub(1)
    }

    fn snippet(&self, mark: Mark, end: Mark) -> Option<Snippet> {
        if end == Mark::default() {
            return None;
        }
        let lines = self.lines.get_or_init(|| {
            let after = memchr::memchr_iter(b'\n', self.text.as_bytes()).map(|at| at + 1);
            std::iter::once(0).chain(after).collect()
        });
        let start = *lines.get(mark.line.checked_sub(1)? as usize)?;
        let line = self.text[start..].lines().next()?;
        Some(snippet(line, mark, end))
    }
}

fn snippet(line: &str, mark: Mark, end: Mark) -> Snippet {
    let width = line.trim_end().chars().count() as u32;
    let until = if end.line == mark.line {
        end.column
    } else {
        width + 1
    };
    let length = until.min(width + 1).saturating_sub(mark.column).max(1);
    // Tabs and control characters would shift the caret or the terminal.
    let shown = line.chars().map(|c| if c.is_control() { ' ' } else { c });
    let skip = (mark.column as usize).saturating_sub(SNIPPET_LENGTH_MAX / 2);
    let skip = if width as usize > SNIPPET_LENGTH_MAX {
        skip
    } else {
        0
    };
    let shown: String = shown.skip(skip).take(SNIPPET_LENGTH_MAX).collect();
    let from = mark.column - skip as u32;
    let room = (shown.chars().count() as u32 + 1)
        .saturating_sub(from)
        .max(1);
    Snippet {
        text: shown.trim_end().to_owned(),
        from,
        length: length.min(room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(line: u32, column: u32, length: u32) -> Finding {
        let mark = Mark { line, column };
        let end = Mark {
            line,
            column: column + length,
        };
        let path = "rules[2].retry.attempts".to_owned();
        Finding::error(
            Spot { mark, end, path },
            "0 means never send",
            "did you mean 1?",
        )
    }

    fn problem(first_line: u32, text: &str, finding: &Finding) -> Problem {
        Page::new("mesh.yaml", first_line, text).problem(finding)
    }

    #[test]
    fn a_problem_is_one_line_with_place_path_and_hint() {
        let problem = problem(13, "retry:\n        0\n", &finding(2, 9, 1));
        let line = "mesh.yaml:14:9 rules[2].retry.attempts: 0 means never send; did you mean 1?";
        assert_eq!(problem.to_string(), line);
    }

    #[test]
    fn the_snippet_underlines_the_place() {
        let problem = problem(14, "attempts: 0  # none\n", &finding(1, 11, 1));
        let text = render(&[problem], false);
        let lines: Vec<&str> = text.lines().collect();
        let expected = ["    |", " 14 | attempts: 0  # none", "    |           ^"];
        assert_eq!(lines[1..], expected);
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}x{}", "a".repeat(500), "b".repeat(500));
        let snippet = problem(1, &text, &finding(1, 501, 1)).snippet.unwrap();
        assert!(snippet.text.len() <= SNIPPET_LENGTH_MAX);
        assert_eq!(snippet.text.as_bytes()[snippet.from as usize - 1], b'x');
    }

    #[test]
    fn a_problem_survives_json() {
        let problem = problem(13, "retry:\n        0\n", &finding(2, 9, 1));
        let json = serde_json::to_string(&problem).unwrap();
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), problem);
    }

    #[test]
    fn beyond_a_limit_problems_are_counted_and_errors_are_kept() {
        let warning = |line| Finding {
            severity: Severity::Warning,
            ..finding(line, 1, 1)
        };
        let mut problems: Vec<Problem> = (1..=PROBLEMS_MAX as u32 + 9)
            .map(|line| problem(1, "", &warning(line)))
            .collect();
        problems.push(problem(9_999, "", &finding(1, 1, 1)));
        Problem::arrange(&mut problems);
        assert_eq!(problems.len(), PROBLEMS_MAX + 1);
        assert_eq!(
            problems.iter().filter(|problem| problem.is_error()).count(),
            1
        );
        assert_eq!(
            problems[PROBLEMS_MAX].message,
            "10 more problems are not shown"
        );
    }
}
