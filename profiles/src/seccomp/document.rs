//! Reads a seccomp document the way containerd and CRI-O do, and says what they would not.
//!
//! Both decode it with Go's `encoding/json` into the OCI runtime specification's `LinuxSeccomp`: keys match
//! whatever their case, `null` leaves a field as it was, and unknown keys are dropped. So a misspelt key loses its
//! rules in silence, and so do the fields that only Docker's and Podman's own format has.
//!
//! Invariant: what was read is what the runtimes get, or there is an error among the findings.

use std::collections::BTreeMap;

use serde_json::error::Category;

use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::seccomp::source::{Kind, Source, Value, cut};
use crate::seccomp::vocabulary::suggestion;

/// Deeper, Go refuses a document ("exceeded max depth", encoding/json/scanner.go).
const DEEPEST: usize = 10_000;

/// How many findings of each severity are told.
const MOST: usize = 100;

/// What the runtimes make of a document: `LinuxSeccomp` of the OCI runtime specification, each part with its place.
#[derive(Debug, Default)]
pub(crate) struct LinuxSeccomp<'a> {
    pub(crate) default_action: Option<Word<'a>>,
    pub(crate) default_errno: Option<u64>,
    pub(crate) architectures: Vec<Word<'a>>,
    pub(crate) flags: Vec<Word<'a>>,
    pub(crate) listener_path: Option<Word<'a>>,
    pub(crate) rules: Vec<Rule<'a>>,
}

impl<'a> LinuxSeccomp<'a> {
    /// The rules for the system call `name`.
    pub(crate) fn rules_for(&self, name: &str) -> impl Iterator<Item = &Rule<'a>> {
        self.rules.iter().filter(move |rule| rule.names.iter().any(|other| other.text == name))
    }
}

/// One element of `syscalls`.
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) at: At<'a>,
    /// Whether no error was found in reading it: if not, what seems to be missing may stand there in a form that
    /// nobody reads, and the rule may be meant to hold only sometimes.
    pub(crate) is_readable: bool,
    pub(crate) names: Vec<Word<'a>>,
    pub(crate) action: Option<Word<'a>>,
    pub(crate) errno: Option<(u64, At<'a>)>,
    pub(crate) conditions: Vec<Condition<'a>>,
}

/// One element of `args`.
#[derive(Debug)]
pub(crate) struct Condition<'a> {
    pub(crate) at: At<'a>,
    pub(crate) index: u64,
    pub(crate) value: u64,
    pub(crate) value_two: u64,
    pub(crate) operator: Option<Word<'a>>,
}

/// A text and its place.
#[derive(Debug)]
pub(crate) struct Word<'a> {
    pub(crate) text: String,
    pub(crate) at: At<'a>,
}

/// A place in the document.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    value: Value<'a>,
    path: String,
}

/// Takes a document apart and collects what is wrong with it.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    source: Source<'a>,
    pub(crate) findings: Vec<Diagnostic>,
    /// How many errors and warnings were found, also those that are not told.
    errors: usize,
    warnings: usize,
}

/// What may stand in an object.
struct Fields {
    /// What the runtimes read.
    read: &'static [&'static str],
    /// What the formats of Docker and Podman have besides, and means something.
    dropped: &'static [&'static str],
    /// What they have besides, and means nothing.
    ignored: &'static [&'static str],
}

const DOCUMENT: Fields = Fields {
    read: &[
        "defaultAction",
        "defaultErrnoRet",
        "architectures",
        "flags",
        "listenerPath",
        "listenerMetadata",
        "syscalls",
    ],
    dropped: &["archMap"],
    ignored: &["defaultErrno", "comment", "$schema"],
};

const RULE: Fields = Fields {
    read: &["names", "action", "errnoRet", "args"],
    dropped: &["name", "includes", "excludes"],
    ignored: &["errno", "comment"],
};

const CONDITION: Fields =
    Fields { read: &["index", "value", "valueTwo", "op"], dropped: &[], ignored: &["comment"] };

/// The members of an object that the runtimes read and that are not `null`, by their names in the specification.
type Members<'a> = BTreeMap<&'static str, At<'a>>;

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { source: Source::new(text), findings: Vec::new(), errors: 0, warnings: 0 }
    }

    /// Reads the document; none if there is nothing in it that could be looked at further.
    pub(crate) fn read(&mut self) -> Option<LinuxSeccomp<'a>> {
        let root = match self.source.root() {
            Ok(root) => At { value: root, path: "$".to_owned() },
            Err(error) => {
                self.findings.push(unreadable(&error));
                return None;
            }
        };
        if root.value.depth() > DEEPEST {
            let message =
                format!("arrays and objects are nested deeper than {DEEPEST}, which Go does not read");
            self.find(Code::InvalidJson, &root, message, "nest less");
            return None;
        }
        if root.value.kind() != Kind::Object {
            self.wrong_type(&root, "an object");
            return None;
        }
        let fields = self.members(&root, &DOCUMENT);
        Some(LinuxSeccomp {
            default_action: self.word(fields.get("defaultAction")),
            default_errno: self.number(fields.get("defaultErrnoRet")).map(|(number, _)| number),
            architectures: self.words(fields.get("architectures")),
            flags: self.words(fields.get("flags")),
            listener_path: self.word(fields.get("listenerPath")),
            rules: self.list(fields.get("syscalls"), Self::rule),
        })
    }

    /// Adds a finding, unless there are plenty of its severity: nobody reads a thousand, and an author could fill the memory
    /// of every agent with them.
    pub(crate) fn find(&mut self, code: Code, at: &At<'a>, message: String, help: &'static str) {
        let alike = match code.severity() {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *alike += 1;
        if *alike <= MOST {
            let place = self.source.place(at.value, at.path.clone());
            self.findings.push(Diagnostic { code, place, message, help });
        }
    }

    /// Whether an error was found so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    fn rule(&mut self, at: &At<'a>) -> Option<Rule<'a>> {
        let errors = self.errors;
        let fields = self.object(at, &RULE)?;
        let names = self.words(fields.get("names"));
        let action = self.word(fields.get("action"));
        let errno = self.number(fields.get("errnoRet"));
        let conditions = self.list(fields.get("args"), Self::condition);
        let is_readable = errors == self.errors;
        Some(Rule { at: at.clone(), is_readable, names, action, errno, conditions })
    }

    fn condition(&mut self, at: &At<'a>) -> Option<Condition<'a>> {
        let fields = self.object(at, &CONDITION)?;
        // Go's zero value is what an absent number is.
        let mut number = |name| self.number(fields.get(name)).map_or(0, |(number, _)| number);
        let (index, value, value_two) = (number("index"), number("value"), number("valueTwo"));
        Some(Condition { at: at.clone(), index, value, value_two, operator: self.word(fields.get("op")) })
    }

    fn object(&mut self, at: &At<'a>, known: &Fields) -> Option<Members<'a>> {
        match at.value.kind() {
            Kind::Object => Some(self.members(at, known)),
            Kind::Null => Some(Members::new()),
            _ => {
                self.wrong_type(at, "an object");
                None
            }
        }
    }

    fn members(&mut self, at: &At<'a>, known: &Fields) -> Members<'a> {
        let mut members = Members::new();
        let names = || known.read.iter().chain(known.dropped).chain(known.ignored).copied();
        for member in at.value.members().unwrap_or_default() {
            let key_at = At { value: member.place, path: format!("{}.{}", at.path, member.key) };
            let Some(name) = names().find(|name| is_same_key(name, &member.key)) else {
                self.unknown_field(&key_at, &member.key, names());
                continue;
            };
            if name != member.key {
                let message =
                    format!("{:?} is read as {name:?}: Go does not distinguish case in keys", member.key);
                self.find(Code::KeyCase, &key_at, message, "write it as the specification does");
            }
            if known.dropped.contains(&name) && !is_empty(member.value) {
                self.dropped_field(&key_at, name);
            }
            if !known.read.contains(&name) {
                continue;
            }
            if members.contains_key(name) {
                let message = format!("{name:?} stands here twice; runtimes take one of them, or mix both");
                self.find(Code::DuplicateKey, &key_at, message, "keep one");
            }
            if member.value.kind() != Kind::Null {
                members.insert(name, At { value: member.value, path: format!("{}.{name}", at.path) });
            }
        }
        members
    }

    fn list<T>(&mut self, at: Option<&At<'a>>, read: impl Fn(&mut Self, &At<'a>) -> Option<T>) -> Vec<T> {
        let Some(at) = at else { return Vec::new() };
        let Some(elements) = at.value.elements() else {
            self.wrong_type(at, "an array");
            return Vec::new();
        };
        let place = |(index, value)| At { value, path: format!("{}[{index}]", at.path) };
        elements.into_iter().enumerate().map(place).filter_map(|at| read(self, &at)).collect()
    }

    fn words(&mut self, at: Option<&At<'a>>) -> Vec<Word<'a>> {
        self.list(at, Self::word_at)
    }

    fn word(&mut self, at: Option<&At<'a>>) -> Option<Word<'a>> {
        self.word_at(at?)
    }

    fn word_at(&mut self, at: &At<'a>) -> Option<Word<'a>> {
        let text = at.value.decode();
        if text.is_none() {
            self.wrong_type(at, "a string");
        }
        text.map(|text| Word { text, at: at.clone() })
    }

    fn number(&mut self, at: Option<&At<'a>>) -> Option<(u64, At<'a>)> {
        let at = at?;
        let number = at.value.decode();
        if number.is_none() {
            self.wrong_type(at, "a whole number from 0 to 2^64-1");
        }
        number.map(|number| (number, at.clone()))
    }

    fn wrong_type(&mut self, at: &At<'a>, expected: &str) {
        let message = format!("{} stands where {expected} has to", at.value.excerpt());
        self.find(
            Code::WrongType,
            at,
            message,
            "see LinuxSeccomp of the OCI runtime specification for the types",
        );
    }

    fn unknown_field(&mut self, at: &At<'a>, key: &str, known: impl Iterator<Item = &'static str>) {
        let meant =
            suggestion(key, known).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
        let message = format!("no runtime reads {:?}{meant}", excerpt(key));
        self.find(Code::UnknownField, at, message, "correct or remove it");
    }

    fn dropped_field(&mut self, at: &At<'a>, name: &'static str) {
        let (message, help) = match name {
            "archMap" => (
                "containerd drops \"archMap\", so only the node's own architecture would be allowed",
                "list the architectures in \"architectures\"",
            ),
            "name" => (
                "containerd drops \"name\", so the rule would be for no system call",
                "write \"names\": [\"…\"]",
            ),
            _ => (
                "containerd drops \"includes\" and \"excludes\", so the rule would hold always",
                "write the rules that are to hold on your nodes, without conditions",
            ),
        };
        self.find(Code::DroppedField, at, message.to_owned(), help);
    }
}

/// Go compares keys under simple case folding, in which two letters outside of ASCII fold to `k` and `s`
/// (encoding/json/fold.go).
fn is_same_key(name: &str, key: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{212a}' => 'k',
        '\u{17f}' => 's',
        other => other.to_ascii_lowercase(),
    };
    name.chars().map(fold).eq(key.chars().map(fold))
}

fn is_empty(value: Value<'_>) -> bool {
    match value.kind() {
        Kind::Null => true,
        Kind::Array => value.elements().is_some_and(|elements| elements.is_empty()),
        Kind::Object => value.members().is_some_and(|members| members.is_empty()),
        Kind::Text => value.decode::<String>().is_some_and(|text| text.is_empty()),
        Kind::Boolean | Kind::Number => false,
    }
}

/// A text of the author's, cut to what a message can hold.
pub(crate) fn excerpt(text: &str) -> String {
    cut(text, 60)
}

fn unreadable(error: &serde_json::Error) -> Diagnostic {
    let help = match error.classify() {
        Category::Eof => "the document ends too early: copy all of it, and close what is open",
        Category::Io | Category::Syntax | Category::Data => {
            "comments, trailing commas and trailing data are not JSON"
        }
    };
    let text = error.to_string();
    // serde_json repeats the position at the end of the text.
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    let place = Place { position: Some((error.line(), error.column())), path: "$".to_owned() };
    Diagnostic { code: Code::InvalidJson, place, message, help }
}
