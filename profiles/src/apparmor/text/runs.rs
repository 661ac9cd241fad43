//! What tokens are made of: runs of characters of a class, quotes, variables.
//!
//! Invariant: no character is looked at more often than a fixed number of times, whatever the text.

/// What can follow what in a run of characters.
pub(super) struct Class {
    /// Bytes that are not in it.
    not: &'static [u8],
    /// Bytes that are in it behind a backslash.
    escaped: &'static [u8],
    /// Whether a comma is in it if another byte of it follows.
    has_commas: bool,
}

pub(super) const ID: Class = Class { not: b" \t\r\n\"!,", escaped: b" \t\"!,", has_commas: true };
pub(super) const INCLUDED: Class = Class { not: b" \t\r\n\"!,<>", escaped: b" \t\"!,", has_commas: true };
pub(super) const AFTER_VARIABLE: Class =
    Class { not: b" \t\n\"!,=+", escaped: b" \t\"!,()", has_commas: true };
pub(super) const LIST_VALUE: Class = Class { not: b" \t\n\"!,()", escaped: b" \t\"!,()", has_commas: false };
pub(super) const LIST_KEY: Class = Class { not: b" \t\n\"!,=)", escaped: b"", has_commas: false };
pub(super) const RULE_WORD: Class = Class { not: b" \t\n\"!,=)", escaped: b"", has_commas: true };
pub(super) const RULE_WORD_START: &[u8] = b" \t\n\"!,=()+&";

/// A text in which ends of runs are looked for.
pub(super) struct Runs<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// How far lines are counted, the number of the line there, and where that starts.
    counted: usize,
    line: usize,
    line_start: usize,
    /// Nothing closes a quote before this.
    no_quote: usize,
    /// Nothing closes an angle bracket before this.
    no_angle: usize,
    /// Behind the last line feed.
    last_line: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            counted: 0,
            line: 1,
            line_start: 0,
            no_quote: 0,
            no_angle: 0,
            last_line: text.rfind('\n').map_or(0, |end| end + 1),
        }
    }

    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    pub(super) fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text.get(from..to).unwrap_or_default()
    }

    /// The end of one part of a run.
    pub(super) fn part(&self, class: &Class, at: usize) -> Option<usize> {
        let is_in = |byte: &u8| !class.not.contains(byte);
        let next = self.bytes.get(at + 1);
        match self.byte(at)? {
            b'\\' if next.is_some_and(|byte| class.escaped.contains(byte)) => Some(at + 2),
            b',' if class.has_commas && next.is_some_and(is_in) => Some(at + 2),
            byte => is_in(&byte).then_some(at + 1),
        }
    }

    pub(super) fn run(&self, class: &Class, from: usize) -> usize {
        let mut at = from;
        while let Some(end) = self.part(class, at) {
            at = end;
        }
        at
    }

    pub(super) fn while_in(&self, from: usize, is_in: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(from..).unwrap_or_default();
        from + rest.iter().take_while(|byte| is_in(**byte)).count()
    }

    pub(super) fn blanks(&self, from: usize) -> usize {
        self.while_in(from, |byte| matches!(byte, b' ' | b'\t'))
    }

    pub(super) fn word(&self, from: usize) -> usize {
        if self.byte(from).is_some_and(|byte| byte.is_ascii_alphabetic()) {
            self.while_in(from, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
        } else {
            from
        }
    }

    pub(super) fn has(&self, at: usize, text: &str) -> bool {
        self.bytes.get(at..).is_some_and(|rest| rest.starts_with(text.as_bytes()))
    }

    /// The end of what stands in quotes from `from` on: at the first quote that no backslash is before;
    /// without one, at the last quote. There must be one before a NUL.
    pub(super) fn quoted(&mut self, from: usize) -> Option<usize> {
        if self.byte(from) != Some(b'"') || from < self.no_quote {
            return None;
        }
        let mut escaped = None;
        for at in from + 1..self.bytes.len() {
            match self.byte(at) {
                Some(b'"') if at > from + 1 && self.byte(at - 1) == Some(b'\\') => escaped = Some(at + 1),
                Some(b'"') => return Some(at + 1),
                Some(0) => {
                    self.no_quote = if escaped.is_none() { at } else { self.no_quote };
                    return escaped;
                }
                _ => {}
            }
        }
        self.no_quote = if escaped.is_none() { self.bytes.len() } else { self.no_quote };
        escaped
    }

    pub(super) fn id(&mut self, class: &Class, from: usize) -> Option<usize> {
        self.quoted(from).or_else(|| Some(self.run(class, from)).filter(|end| *end > from))
    }

    /// `@{X}`, `@X`, `${X}` or `$X`.
    pub(super) fn variable(&self, from: usize) -> Option<usize> {
        let is_braced = self.byte(from + 1) == Some(b'{');
        let start = from + 1 + usize::from(is_braced);
        let end = self.word(start);
        let is_whole = end > start && (!is_braced || self.byte(end) == Some(b'}'));
        is_whole.then_some(end + usize::from(is_braced))
    }

    /// A path, a label, or a variable with something behind it.
    pub(super) fn label(&self, from: usize) -> Option<usize> {
        let start = match self.byte(from)? {
            b'/' | b':' | b'&' => from + 1,
            b'@' => {
                let end = self.variable(from)?;
                // A name without braces can end after any of its letters, and the others are what follows.
                let end = if self.byte(from + 1) == Some(b'{') { end } else { from + 2 };
                self.part(&AFTER_VARIABLE, end)?
            }
            _ => return None,
        };
        Some(self.run(&ID, start))
    }

    /// A line feed, perhaps behind a carriage return.
    pub(super) fn line_end(&self, from: usize) -> Option<usize> {
        let feed = from + usize::from(self.byte(from) == Some(b'\r'));
        (self.byte(feed) == Some(b'\n')).then_some(feed + 1)
    }

    pub(super) fn angle(&mut self, from: usize) -> Option<usize> {
        if self.byte(from + 1) == Some(b'"') {
            let end = self.quoted(from + 1)?;
            return (self.byte(end) == Some(b'>')).then_some(end + 1);
        }
        if from < self.no_angle {
            return None;
        }
        let end = self.while_in(from + 1, |byte| !matches!(byte, b'"' | b'>' | b'\t' | b'\r' | b'\n'));
        if self.byte(end) == Some(b'>') {
            return (end > from + 1).then_some(end + 1);
        }
        self.no_angle = end;
        None
    }
    pub(super) fn place(&mut self, at: usize) -> (usize, usize) {
        for (index, byte) in self.bytes.iter().enumerate().take(at).skip(self.counted) {
            if *byte == b'\n' {
                self.line += 1;
                self.line_start = index + 1;
            }
        }
        self.counted = self.counted.max(at);
        (self.line, at.saturating_sub(self.line_start) + 1)
    }

    /// Whether a line feed follows.
    pub(super) fn is_line_ended(&self, from: usize) -> bool {
        from < self.last_line
    }

    /// The length of the character here, in bytes.
    pub(super) fn letter(&self, at: usize) -> usize {
        self.text.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
    }
}
