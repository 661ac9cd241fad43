//! What `apparmor_parser` printed, as findings about the text that it was given.
//!
//! The parser prints what it read, wherever that stood: names and contents of files that a text includes, and
//! memory that nobody wrote. So no message of it is passed on. What is said is made anew from the kind of the
//! message, a line of the author's text, tokens of the grammar, and a word that stands in that text.
//!
//! Invariant: a finding holds nothing but what stands in the author's text, or here.

use crate::apparmor::text::{Include, includes};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::findings::{Findings, excerpt};

mod words;

/// No more lines than this are read of what the parser printed.
const MOST_LINES: usize = 150;
/// For each of them, the text is searched, a few times. So fewer are read of what it printed about a long text:
/// as many as come to this many bytes.
const SEARCHED: usize = 8 << 20;
/// A longer word is not looked for in the text.
const LONGEST_WORD: usize = 300;
const FROM_INCLUDED: &str = "include <abstractions/…> inside of a profile and <tunables/…> before, and end the rule \
                             before with a comma";

/// Why the parser refused `text`, when `stderr` is what it printed: one error at least.
#[must_use]
pub fn findings(text: &str, stderr: &str) -> Vec<Diagnostic> {
    let mut reader = Reader { text, includes: None, findings: Findings::default() };
    let mut broken = None;
    for line in lines(text, stderr) {
        if let Some(warning) = line.strip_prefix("Warning from ") {
            reader.warning(warning);
        } else if let Some((site, message)) = located(line) {
            broken = broken.or(Some(site));
            reader.error(site, message);
        } else {
            reader.unplaced(line);
        }
    }
    if reader.findings.errors == 0 {
        let place = broken.map_or_else(whole, |site| reader.place(site, None));
        let help = "see apparmor.d(5), or try apparmor_parser -QTK on the text";
        reader.find(Code::InvalidPolicy, place, "the parser refuses the text".to_owned(), help);
    }
    reader.findings.end()
}

/// What the parser warns of, though it took `text`, when `stderr` is what it printed.
#[must_use]
pub fn warnings(text: &str, stderr: &str) -> Vec<Diagnostic> {
    let mut reader = Reader { text, includes: None, findings: Findings::default() };
    for line in lines(text, stderr) {
        if let Some(warning) = line.strip_prefix("Warning from ") {
            reader.warning(warning);
        }
    }
    reader.findings.end()
}

/// The lines of `stderr` that are read.
fn lines<'a>(text: &str, stderr: &'a str) -> impl Iterator<Item = &'a str> {
    stderr.lines().take(MOST_LINES.min(SEARCHED / text.len().max(1)))
}

/// Where the parser was.
#[derive(Clone, Copy)]
enum Site<'a> {
    /// On this line of the author's text.
    Line(usize),
    /// In this file, which is included.
    Included(&'a str),
}

struct Reader<'a> {
    text: &'a str,
    /// What the text includes, once that is asked.
    includes: Option<Vec<Include<'a>>>,
    findings: Findings,
}

impl<'a> Reader<'a> {
    fn find(&mut self, code: Code, place: Place, message: String, help: &'static str) {
        let is_said = |told: &Diagnostic| told.code == code && told.place == place && told.message == message;
        if !self.findings.told.iter().any(is_said) {
            self.findings.add(code, || place, message, help);
        }
    }

    fn error(&mut self, site: Site<'_>, message: &str) {
        if let Site::Included(file) = site {
            return self.included(file);
        }
        if let Some(rest) = message.strip_prefix("syntax error") {
            return self.syntax(site, rest);
        }
        if let Some(byte) = unexpected_byte(message) {
            return self.unexpected(site, byte);
        }
        if let Some((known, word)) = words::known(words::ERRORS, message) {
            self.known(known, word, Some(site));
        }
    }

    fn unplaced(&mut self, line: &str) {
        if let Some((known, word)) = words::known(words::ERRORS, line) {
            self.known(known, word, None);
        }
    }

    fn warning(&mut self, warning: &str) {
        let Some((source, message)) = warning.split_once("): ") else { return };
        let Some((of, at)) = source.rsplit_once(" (") else { return };
        let site = match at
            .rsplit_once("line ")
            .and_then(|(file, line)| Some((file.trim(), line.parse().ok()?)))
        {
            Some((file, line)) if file.is_empty() || file == "stdin" || file == of => Some(Site::Line(line)),
            // Of AppArmor's own files.
            Some(_) => return,
            None => None,
        };
        if let Some((known, word)) = words::known(words::WARNINGS, message) {
            self.known(known, word, site);
        }
    }

    fn known(&mut self, known: &'static words::Known, word: &str, site: Option<Site<'_>>) {
        let word = word.trim_end_matches('\\').trim();
        let is_own = first_word(self.text, word).is_some();
        let message =
            if is_own { format!("{}: {:?}", known.says, excerpt(word)) } else { known.says.to_owned() };
        let place = match (site, last_word(self.before(site), word)) {
            (_, Some(offset)) => self.at(offset),
            (Some(site), None) => self.place(site, None),
            (None, None) => whole(),
        };
        self.find(known.code, place, message, known.help);
    }

    /// An error in a file that is included is told at the include.
    fn included(&mut self, file: &str) {
        let include = self.include(file);
        let message = match include {
            Some(include) => {
                format!("the parser can't read what is included here: {:?}", excerpt(include.path))
            }
            None => "the parser can't read a file that is included".to_owned(),
        };
        let place = include.map_or_else(whole, |include| at(include.at));
        self.find(Code::InvalidPolicy, place, message, FROM_INCLUDED);
    }

    /// The include by which the parser came to `file`: the one of that path, or the only one.
    fn include(&mut self, file: &str) -> Option<Include<'a>> {
        let text = self.text;
        let includes = self
            .includes
            .get_or_insert_with(|| includes(text).into_iter().filter(|include| !include.is_abi).collect());
        let is_it = |include: &&Include<'_>| {
            file.strip_suffix(include.path).is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        match includes.as_slice() {
            [only] => Some(*only),
            all => all.iter().find(is_it).copied(),
        }
    }

    fn syntax(&mut self, site: Site<'_>, rest: &str) {
        let help = if rest.starts_with(", unexpected end of file") {
            "close each { with }, and end each rule with a comma"
        } else {
            "see apparmor.d(5); each rule ends with a comma, also the one before"
        };
        let Some(rest) = rest.strip_prefix(", unexpected ") else {
            return self.find(Code::InvalidPolicy, self.place(site, None), "a syntax error".to_owned(), help);
        };
        let (unexpected, expected) = rest.split_once(", expecting ").unwrap_or((rest, ""));
        let shown = |(shown, is_literal)| if is_literal { format!("{shown:?}") } else { String::from(shown) };
        let found = words::token(unexpected.trim());
        let expected: Option<Vec<String>> =
            expected.split(" or ").map(|name| words::token(name.trim()).map(shown)).collect();
        let message = match (found.map(shown), expected) {
            (Some(found), Some(expected)) => {
                format!("a syntax error: found {found} where there should be {}", either(&expected))
            }
            (Some(found), None) => format!("a syntax error: {found} can't stand here"),
            (None, _) => "a syntax error".to_owned(),
        };
        let word = found.filter(|(_, is_literal)| *is_literal).map(|(shown, _)| shown);
        let place = self.place(site, word);
        self.find(Code::InvalidPolicy, place, message, help);
    }

    /// A byte that can't stand where it does.
    fn unexpected(&mut self, site: Site<'_>, byte: u8) {
        let (message, help) = match byte {
            b'#' => ("a comment must end with a line feed", "add one at the end of the text"),
            0xef if self.text.starts_with('\u{feff}') => {
                ("the text starts with a byte order mark", "save it as UTF-8 without one")
            }
            0 => ("a NUL character stands in the text", "save it as UTF-8"),
            b'"' => {
                ("a quote can't stand here, or is not closed", "put quotes around the whole name or path")
            }
            b'\r' => ("a carriage return stands here without a line feed", "end lines with a line feed"),
            b'<' => ("an angle bracket can't stand here, or is not closed", "close it on the same line"),
            _ => ("a character stands where it can't", "see apparmor.d(5)"),
        };
        let line = if let Site::Line(line) = site { line } else { 0 };
        let column = self.line(line).and_then(|text| text.bytes().position(|own| own == byte));
        let place = match column {
            Some(column) => at((line, column + 1)),
            None => self.place(site, None),
        };
        self.find(Code::InvalidPolicy, place, message.to_owned(), help);
    }

    /// The line of this number, from 1.
    fn line(&self, number: usize) -> Option<&'a str> {
        self.text.split('\n').nth(number.checked_sub(1)?)
    }

    /// The text up to the end of the line where the parser was. It says some things only at the end of a rule
    /// or a profile.
    fn before(&self, site: Option<Site<'_>>) -> &'a str {
        let Some(Site::Line(number)) = site else { return self.text };
        let end = self.text.match_indices('\n').nth(number.saturating_sub(1)).map(|(offset, _)| offset);
        end.and_then(|end| self.text.get(..end)).unwrap_or(self.text)
    }

    /// Where `word` stands on the line, or else what is not blank.
    fn place(&self, site: Site<'_>, word: Option<&str>) -> Place {
        let Site::Line(number) = site else { return whole() };
        let Some(line) = self.line(number) else { return whole() };
        let first = || line.len() - line.trim_start().len();
        let column = word.and_then(|word| first_word(line, word)).unwrap_or_else(first);
        at((number, column + 1))
    }

    fn at(&self, offset: usize) -> Place {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1) + 1;
        at((line, column))
    }
}

fn at(position: (usize, usize)) -> Place {
    Place { position: Some(position), path: "$".to_owned() }
}

fn whole() -> Place {
    Place::at("$")
}

/// Where the parser was when it said this, and what it said.
fn located(line: &str) -> Option<(Site<'_>, &str)> {
    let rest = line.strip_prefix("AppArmor parser error ")?;
    if let Some(rest) = rest.strip_prefix("at line ") {
        let (number, message) = numbered(rest)?;
        return Some((Site::Line(number), message));
    }
    let (files, rest) = rest.strip_prefix("for ")?.split_once(" at line ")?;
    let (number, message) = numbered(rest)?;
    match files.split_once(" in profile ") {
        Some((given, read)) if given != read && read != "stdin" => Some((Site::Included(read), message)),
        _ => Some((Site::Line(number), message)),
    }
}

fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, message) = text.split_once(": ")?;
    Some((number.parse().ok()?, message))
}

/// `Lexer found unexpected character: 'X' (0xNN) in state: S`; a byte above 127 comes as a negative number.
fn unexpected_byte(message: &str) -> Option<u8> {
    let (_, rest) = message.strip_prefix("Lexer found unexpected character: ")?.split_once("(0x")?;
    let (digits, _) = rest.split_once(')')?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    number.to_le_bytes().first().copied()
}

fn either(words: &[String]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// Where `word` stands first in `text`, not as a part of another word.
fn first_word(text: &str, word: &str) -> Option<usize> {
    if !is_sought(word) {
        return None;
    }
    text.match_indices(word).map(|(at, _)| at).find(|at| is_whole(text, *at, word))
}

/// The same, last.
fn last_word(text: &str, word: &str) -> Option<usize> {
    if !is_sought(word) {
        return None;
    }
    text.rmatch_indices(word).map(|(at, _)| at).find(|at| is_whole(text, *at, word))
}

fn is_sought(word: &str) -> bool {
    (1..=LONGEST_WORD).contains(&word.len())
}

/// Whether no longer word stands here.
fn is_whole(text: &str, at: usize, word: &str) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let bytes = text.as_bytes();
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    let after = bytes.get(at + word.len());
    !word.bytes().all(|byte| is_part(&byte)) || !before.is_some_and(is_part) && !after.is_some_and(is_part)
}

#[cfg(test)]
mod tests;
