//! Findings about a text, while they are collected.
//!
//! Invariant: of each severity no more than [`MOST`] are kept, and what is left out is said; and what an
//! author wrote reaches no message with a character that does something else than to be seen.

use crate::diagnostic::{Code, Diagnostic, Place, Severity};

/// How many findings of each severity are told: nobody reads a thousand, and an author could fill the memory
/// of every agent with them.
pub(crate) const MOST: usize = 100;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// What is told.
    pub(crate) told: Vec<Diagnostic>,
    /// How many errors were found, also those that are not told.
    pub(crate) errors: usize,
    /// The same of warnings.
    warnings: usize,
}

impl Findings {
    /// Adds a finding at the place that `place` says, unless there are plenty of its severity.
    pub(crate) fn add(
        &mut self,
        code: Code,
        place: impl FnOnce() -> Place,
        message: String,
        help: &'static str,
    ) {
        if self.is_told(code) {
            let place = place();
            let place = Place { path: visible(place.path), ..place };
            self.told.push(Diagnostic { code, place, message: visible(message), help });
        }
        match code.severity() {
            Severity::Error => self.errors += 1,
            Severity::Warning => self.warnings += 1,
        }
    }

    /// Whether another finding of this kind is told.
    pub(crate) fn is_told(&self, code: Code) -> bool {
        let alike = match code.severity() {
            Severity::Error => self.errors,
            Severity::Warning => self.warnings,
        };
        alike < MOST
    }

    /// All that is told, in the order of the text.
    pub(crate) fn end(self) -> Vec<Diagnostic> {
        let is_cut = self.errors.max(self.warnings) > MOST;
        let mut findings = self.told;
        findings.sort_by_key(|finding| finding.place.position);
        findings.extend(is_cut.then(more));
        findings
    }
}

/// What stands behind findings that are not all.
fn more() -> Diagnostic {
    Diagnostic {
        code: Code::MoreFindings,
        place: Place::at("$"),
        message: format!("there is more: {MOST} errors and {MOST} warnings are told at most"),
        help: "correct these first",
    }
}

/// `text`, or so many characters of it and an ellipsis.
pub(crate) fn cut(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A text of the author's, cut to what a message can hold.
pub(crate) fn excerpt(text: &str) -> String {
    cut(text, 60)
}

/// `text` with what it is in place of each character that would do something else to a terminal, a log or an
/// Event than to be seen.
pub(crate) fn visible(text: String) -> String {
    if text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return text;
    }
    let shown = |letter: char| match letter {
        '"' | '\'' | '\\' => String::from(letter),
        other => other.escape_debug().collect(),
    };
    text.chars().map(shown).collect()
}
