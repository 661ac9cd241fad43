//! The text of a policy, as tokens.
//!
//! Follows `parser_lex.l` of `apparmor_parser` 3.0.8: its start conditions are the [`Mode`]s here, and the
//! longest match wins. So `profile a{` declares `a{`, a `#` in a list of values begins no comment, and a
//! brace in a path opens no block, just as there. Where that parser gives up, this goes on behind the
//! character that it can't read, so that the rest is told too: such a text is refused by the parser anyway.
//!
//! Invariant: the work is linear in the text's length, and a token is a slice of the text.

use super::runs::{Class, ID, INCLUDED, LIST_KEY, LIST_VALUE, RULE_WORD, RULE_WORD_START, Runs};

/// What a token is, as far as anyone asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A name, a path, a label; or a word that is no keyword.
    Id,
    /// A value in a list or an assignment.
    Value,
    /// Permissions of a file rule.
    Mode,
    /// `@{X}`, alone.
    Variable,
    /// What stands before `=` or `in`.
    Condition,
    /// What stands before `=(` of a group: `peer`, `xattrs`.
    Group,
    Keyword,
    /// `profile`.
    Profile,
    /// `hat` or `^`.
    Hat,
    Open,
    Close,
    EndOfRule,
    EndOfAssignment,
    Equals,
    Arrow,
    CloseParenthesis,
    /// A file that is included here.
    Include {
        is_searched: bool,
        if_exists: bool,
    },
    /// The file that `abi` names.
    Abi {
        is_searched: bool,
    },
    /// Any other token.
    Other,
    /// A character that can't stand here.
    Error,
}

/// A token, with its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// Without quotes or angle brackets.
    pub(super) text: &'a str,
    /// Line and byte column, both from 1.
    pub(super) at: (usize, usize),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Initial,
    /// One name. With blanks before it, or not.
    Name {
        has_blanks: bool,
    },
    /// One value.
    OneValue,
    Condition,
    Group,
    /// Values in parentheses.
    Values,
    /// Conditions in parentheses.
    Conditions,
    ConditionValue,
    ConditionValues,
    Assignment,
    Network,
    Rlimit,
    ChangeProfile,
    /// The rules that share `MOUNT_MODE`, `DBUS_MODE`, `SIGNAL_MODE`, `PTRACE_MODE` and `UNIX_MODE`.
    Mount,
    Ipc,
    Include {
        if_exists: bool,
    },
    Abi {
        has_name: bool,
    },
}

/// The words that are no names (`keyword_table` in `parser_misc.c`), and the mode that each begins.
const KEYWORDS: &[(&str, Mode)] = &[
    ("network", Mode::Network),
    ("unix", Mode::Ipc),
    ("capability", Mode::Initial),
    ("if", Mode::Initial),
    ("else", Mode::Initial),
    ("not", Mode::Initial),
    ("defined", Mode::Initial),
    ("change_profile", Mode::ChangeProfile),
    ("unsafe", Mode::Initial),
    ("safe", Mode::Initial),
    ("link", Mode::Initial),
    ("owner", Mode::Initial),
    ("user", Mode::Initial),
    ("other", Mode::Initial),
    ("subset", Mode::Initial),
    ("audit", Mode::Initial),
    ("deny", Mode::Initial),
    ("allow", Mode::Initial),
    ("set", Mode::Initial),
    ("rlimit", Mode::Rlimit),
    ("alias", Mode::Initial),
    ("rewrite", Mode::Initial),
    ("ptrace", Mode::Ipc),
    ("file", Mode::Initial),
    ("mount", Mode::Mount),
    ("remount", Mode::Mount),
    ("umount", Mode::Mount),
    ("unmount", Mode::Mount),
    ("pivot_root", Mode::Initial),
    ("in", Mode::Initial),
    ("dbus", Mode::Ipc),
    ("signal", Mode::Ipc),
    ("send", Mode::Initial),
    ("receive", Mode::Initial),
    ("bind", Mode::Initial),
    ("read", Mode::Initial),
    ("write", Mode::Initial),
    ("eavesdrop", Mode::Initial),
    ("peer", Mode::Initial),
    ("trace", Mode::Initial),
    ("tracedby", Mode::Initial),
    ("readby", Mode::Initial),
    ("abi", Mode::Abi { has_name: false }),
];

/// The tokens of a text, in their order.
pub(super) struct Lexer<'a> {
    runs: Runs<'a>,
    /// Where the next token may begin.
    next: usize,
    /// The innermost one last. Without any it is [`Mode::Initial`].
    modes: Vec<Mode>,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { runs: Runs::new(text), next: 0, modes: Vec::new() }
    }

    fn mode(&self) -> Mode {
        self.modes.last().copied().unwrap_or(Mode::Initial)
    }

    /// Goes into `mode`, and back when that ends.
    fn push(&mut self, mode: Mode) {
        // To go from the initial mode into itself changes nothing, and its rules never end it.
        if mode != Mode::Initial {
            self.modes.push(mode);
        }
    }

    fn replace(&mut self, mode: Mode) {
        self.modes.pop();
        self.modes.push(mode);
    }

    fn token(&mut self, kind: Kind, from: usize, to: usize) -> Token<'a> {
        let at = self.runs.place(from);
        self.next = to;
        Token { kind, text: self.runs.slice(from, to), at }
    }

    /// Of what may be in quotes, which are left out.
    fn unquoted(&mut self, kind: Kind, from: usize, to: usize) -> Token<'a> {
        let mut token = self.token(kind, from, to);
        if let Some(inner) = token.text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            token.text = inner;
        }
        token
    }

    /// The next token.
    pub(super) fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let from = self.next;
            self.runs.byte(from)?;
            let token = match self.mode() {
                Mode::Initial => self.initial(from),
                mode => self.within(mode, from),
            };
            match token {
                Step::Token(token) => return Some(token),
                Step::Skip(to) => self.next = to,
                Step::Unknown => return Some(self.unknown(from)),
            }
        }
    }

    /// A character that can't stand here. What follows is read as if nothing was before it.
    fn unknown(&mut self, from: usize) -> Token<'a> {
        self.modes.clear();
        let length = self.runs.letter(from);
        self.token(Kind::Error, from, from + length)
    }

    fn initial(&mut self, from: usize) -> Step<'a> {
        let Some(byte) = self.runs.byte(from) else { return Step::Unknown };
        if let Some(end) = self.runs.line_end(from) {
            return Step::Skip(end);
        }
        let (kind, to) = match byte {
            b' ' | b'\t' => return Step::Skip(self.runs.blanks(from)),
            b'#' => return self.comment(from),
            b'^' => return self.begin(Mode::Name { has_blanks: false }, Kind::Hat, from, from + 1),
            b'-' if self.runs.has(from, "->") => {
                return self.begin(Mode::Name { has_blanks: true }, Kind::Arrow, from, from + 2);
            }
            b'=' => return self.begin(Mode::Assignment, Kind::Equals, from, from + 1),
            b'+' if self.runs.has(from, "+=") => {
                return self.begin(Mode::Assignment, Kind::Equals, from, from + 2);
            }
            b'(' => return self.begin(Mode::Values, Kind::Other, from, from + 1),
            b'{' => (Kind::Open, from + 1),
            b'}' => (Kind::Close, from + 1),
            b',' => (Kind::EndOfRule, from + 1),
            b'$' => match self.runs.variable(from) {
                Some(end) => (Kind::Variable, end),
                None => return Step::Unknown,
            },
            b'@' | b'/' | b':' | b'&' => {
                match (self.runs.variable(from).filter(|_| byte == b'@'), self.runs.label(from)) {
                    (Some(variable), label) if label.is_none_or(|label| label <= variable) => {
                        (Kind::Variable, variable)
                    }
                    (_, Some(label)) => (Kind::Id, label),
                    (_, None) => return Step::Unknown,
                }
            }
            b'"' if matches!(self.runs.byte(from + 1), Some(b'/' | b'@' | b':' | b'&')) => {
                match self.runs.quoted(from) {
                    Some(end) => return Step::Token(self.unquoted(Kind::Id, from, end)),
                    None => return Step::Unknown,
                }
            }
            _ => return self.initial_word(from),
        };
        Step::Token(self.token(kind, from, to))
    }

    fn begin(&mut self, mode: Mode, kind: Kind, from: usize, to: usize) -> Step<'a> {
        self.push(mode);
        Step::Token(self.token(kind, from, to))
    }

    /// A comment, or an include that looks like one.
    fn comment(&mut self, from: usize) -> Step<'a> {
        if !self.runs.is_line_ended(from) {
            return Step::Unknown;
        }
        let name = "#include";
        if self.runs.has(from, name) {
            let exists = self.if_exists(from + name.len());
            self.push(Mode::Include { if_exists: exists.is_some() });
            return Step::Skip(exists.unwrap_or(from + name.len()));
        }
        let line = self.runs.while_in(from, |byte| byte != b'\n');
        Step::Skip(line + 1)
    }

    /// Where `if exists` ends, behind blanks and with a blank behind it.
    fn if_exists(&self, from: usize) -> Option<usize> {
        let condition = self.runs.blanks(from);
        let exists = self.runs.blanks(condition + 2);
        let is_there = condition > from
            && self.runs.has(condition, "if")
            && exists > condition + 2
            && self.runs.has(exists, "exists")
            && self.runs.blanks(exists + 6) > exists + 6;
        is_there.then_some(exists + 6)
    }

    fn initial_word(&mut self, from: usize) -> Step<'a> {
        let end = self.runs.word(from);
        if end == from {
            return Step::Unknown;
        }
        if let Some(step) = self.condition(from, end) {
            return step;
        }
        let word = self.runs.slice(from, end);
        if word == "include" && self.runs.blanks(end) > end {
            let exists = self.if_exists(end);
            self.push(Mode::Include { if_exists: exists.is_some() });
            return Step::Skip(exists.unwrap_or(end));
        }
        if is_mode(word) && self.runs.byte(end).is_some_and(ends_mode) {
            return Step::Token(self.token(Kind::Mode, from, end));
        }
        let kind = match word {
            "profile" => Kind::Profile,
            "hat" => Kind::Hat,
            _ => match KEYWORDS.iter().find(|(keyword, _)| *keyword == word) {
                Some((_, mode)) => return self.begin(*mode, Kind::Keyword, from, end),
                None => return Step::Token(self.token(Kind::Id, from, end)),
            },
        };
        let token = self.token(kind, from, end);
        self.next = self.runs.blanks(end);
        self.push(Mode::Name { has_blanks: false });
        Step::Token(token)
    }

    /// A word before `=` or `in (`.
    fn condition(&mut self, from: usize, end: usize) -> Option<Step<'a>> {
        let blanks = self.runs.blanks(end);
        if self.runs.byte(blanks) == Some(b'=') {
            let is_group = matches!(self.runs.slice(from, end), "peer" | "xattrs")
                && self.runs.byte(self.runs.blanks(blanks + 1)) == Some(b'(');
            let (mode, kind) =
                if is_group { (Mode::Group, Kind::Group) } else { (Mode::Condition, Kind::Condition) };
            return Some(self.begin(mode, kind, from, end));
        }
        let is_in = blanks > end
            && self.runs.has(blanks, "in")
            && self.runs.byte(self.runs.blanks(blanks + 2)) == Some(b'(');
        is_in.then(|| self.begin(Mode::Condition, Kind::Condition, from, end))
    }

    /// In any mode but the initial one.
    fn within(&mut self, mode: Mode, from: usize) -> Step<'a> {
        let Some(byte) = self.runs.byte(from) else { return Step::Unknown };
        let has_blanks = !matches!(mode, Mode::Name { has_blanks: false } | Mode::OneValue);
        if has_blanks && matches!(byte, b' ' | b'\t') {
            return Step::Skip(self.runs.blanks(from));
        }
        if let Some(end) = self.runs.line_end(from).filter(|_| has_blanks) {
            if mode == Mode::Assignment {
                self.modes.pop();
                return Step::Token(self.token(Kind::EndOfAssignment, from, end));
            }
            return Step::Skip(end);
        }
        match mode {
            Mode::Name { .. } => self.one(Kind::Id, &ID, from),
            Mode::OneValue => self.one(Kind::Value, &ID, from),
            Mode::ConditionValue => self.one(Kind::Value, &LIST_VALUE, from),
            Mode::Condition | Mode::Group => self.before_values(mode, from),
            Mode::Values | Mode::ConditionValues => self.values(mode, from),
            Mode::Conditions => self.conditions(from),
            Mode::Assignment if self.runs.has(from, "\\\n") => Step::Skip(from + 2),
            Mode::Assignment => self.many(Kind::Value, &ID, from),
            Mode::Include { if_exists } => {
                self.included(from, |is_searched| Kind::Include { is_searched, if_exists })
            }
            Mode::Abi { has_name } if byte != b',' => {
                if has_name {
                    // The comma is missing. The parser takes all that follows as values.
                    self.modes.pop();
                    return Step::Skip(from);
                }
                self.included(from, |is_searched| Kind::Abi { is_searched })
            }
            _ if byte == b',' => {
                self.modes.pop();
                Step::Token(self.token(Kind::EndOfRule, from, from + 1))
            }
            Mode::ChangeProfile => self.change_profile(from),
            Mode::Mount | Mode::Ipc => self.rule_word(mode, from),
            Mode::Initial | Mode::Network | Mode::Rlimit | Mode::Abi { .. } => self.many(Kind::Id, &ID, from),
        }
    }

    fn many(&mut self, kind: Kind, class: &Class, from: usize) -> Step<'a> {
        match self.runs.id(class, from) {
            Some(end) => Step::Token(self.unquoted(kind, from, end)),
            None => Step::Unknown,
        }
    }

    /// One, and then the mode is over.
    fn one(&mut self, kind: Kind, class: &Class, from: usize) -> Step<'a> {
        let step = self.many(kind, class, from);
        self.modes.pop();
        step
    }

    fn before_values(&mut self, mode: Mode, from: usize) -> Step<'a> {
        let is_list = mode == Mode::Group;
        match self.runs.byte(from) {
            Some(b'=') => {
                let after = self.runs.blanks(from + 1);
                let is_one =
                    !is_list && self.runs.byte(after).is_some_and(|byte| !matches!(byte, b'(' | b'\n'));
                if is_one {
                    self.replace(Mode::OneValue);
                }
                let token = self.token(Kind::Equals, from, from + 1);
                self.next = if is_one { after } else { from + 1 };
                Step::Token(token)
            }
            Some(b'(') => {
                self.replace(if is_list { Mode::Conditions } else { Mode::Values });
                Step::Token(self.token(Kind::Other, from, from + 1))
            }
            Some(b'i') if !is_list && self.runs.has(from, "in") => {
                Step::Token(self.token(Kind::Other, from, from + 2))
            }
            _ => Step::Unknown,
        }
    }

    fn values(&mut self, mode: Mode, from: usize) -> Step<'a> {
        match self.runs.byte(from) {
            Some(b')') => {
                self.modes.pop();
                if mode == Mode::ConditionValues {
                    return Step::Skip(from + 1);
                }
                Step::Token(self.token(Kind::CloseParenthesis, from, from + 1))
            }
            Some(b',') if mode == Mode::Values => Step::Skip(from + 1),
            _ => self.many(Kind::Value, &LIST_VALUE, from),
        }
    }

    fn conditions(&mut self, from: usize) -> Step<'a> {
        match self.runs.byte(from) {
            Some(b')') => {
                self.modes.pop();
                Step::Token(self.token(Kind::CloseParenthesis, from, from + 1))
            }
            Some(b',') => Step::Skip(from + 1),
            Some(b'=') => {
                let after = self.runs.blanks(from + 1);
                if self.runs.byte(after) == Some(b'(') {
                    return self.begin(Mode::ConditionValues, Kind::Equals, from, after + 1);
                }
                self.begin(Mode::ConditionValue, Kind::Equals, from, from + 1)
            }
            _ => match self.runs.run(&LIST_KEY, from) {
                end if end > from => Step::Token(self.token(Kind::Condition, from, end)),
                _ => Step::Unknown,
            },
        }
    }

    fn change_profile(&mut self, from: usize) -> Step<'a> {
        if self.runs.run(&ID, from) == from + 2 && self.runs.has(from, "->") {
            return self.begin(Mode::Name { has_blanks: true }, Kind::Arrow, from, from + 2);
        }
        match self.many(Kind::Id, &ID, from) {
            Step::Token(token) if matches!(token.text, "safe" | "unsafe") => {
                Step::Token(Token { kind: Kind::Keyword, ..token })
            }
            step => step,
        }
    }

    /// What stands in a rule about mounts, D-Bus, signals, ptrace and Unix sockets.
    fn rule_word(&mut self, mode: Mode, from: usize) -> Step<'a> {
        let word = self.runs.word(from);
        if let Some(step) = (word > from).then(|| self.condition(from, word)).flatten() {
            return step;
        }
        if mode == Mode::Ipc && self.runs.byte(from) == Some(b'(') {
            return self.begin(Mode::Values, Kind::Other, from, from + 1);
        }
        let is_start = self.runs.byte(from).is_some_and(|byte| !RULE_WORD_START.contains(&byte));
        let run = if is_start { self.runs.run(&RULE_WORD, from) } else { from };
        let end = [self.runs.quoted(from), self.runs.label(from), Some(run)].into_iter().flatten().max();
        match end.filter(|end| *end > from) {
            Some(end) => Step::Token(self.unquoted(Kind::Id, from, end)),
            None => Step::Unknown,
        }
    }

    /// The name of a file: `<name>`, `<"name">`, `"name"` or `name`.
    fn included(&mut self, from: usize, kind: impl Fn(bool) -> Kind) -> Step<'a> {
        let is_searched = self.runs.byte(from) == Some(b'<');
        let end = if is_searched { self.runs.angle(from) } else { self.runs.id(&INCLUDED, from) };
        let Some(end) = end else { return Step::Unknown };
        match self.mode() {
            Mode::Abi { .. } => self.replace(Mode::Abi { has_name: true }),
            _ => drop(self.modes.pop()),
        }
        let mut token = self.unquoted(kind(is_searched), from, end);
        if is_searched {
            token.text = token.text.trim_start_matches('<').trim_end_matches('>').trim();
        }
        Step::Token(token)
    }
}

enum Step<'a> {
    Token(Token<'a>),
    /// Nothing before this offset is a token.
    Skip(usize),
    Unknown,
}

/// What must stand behind permissions.
fn ends_mode(byte: u8) -> bool {
    byte == b',' || byte == 0x0b || byte.is_ascii_whitespace()
}

/// Whether `word` is made of permissions: single letters, and `x` with what qualifies it before.
fn is_mode(word: &str) -> bool {
    let mut letters = word.bytes().map(|byte| byte.to_ascii_lowercase()).peekable();
    while let Some(letter) = letters.next() {
        let is_sound = match letter {
            b'r' | b'w' | b'a' | b'l' | b'm' | b'k' | b'x' => true,
            b'i' | b'u' => letters.next() == Some(b'x'),
            b'p' | b'c' => match letters.next() {
                Some(b'x') => true,
                Some(b'i' | b'u') => letters.next() == Some(b'x'),
                _ => false,
            },
            _ => false,
        };
        if !is_sound {
            return false;
        }
    }
    !word.is_empty()
}
