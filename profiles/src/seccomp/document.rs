//! Reads a seccomp document the way Docker, Podman and CRI-O do, and says what they would not.
//!
//! They decode it with Go's `encoding/json`: keys match whatever their case, `null` leaves a field as it was,
//! and unknown keys are dropped. So a misspelt key loses its rules in silence. What they decode into is
//! `LinuxSeccomp` of the OCI runtime specification, with fields of their own beside (moby/profiles,
//! seccomp/seccomp.go; containers/common, pkg/seccomp/types.go). containerd decodes into `LinuxSeccomp`
//! alone.
//!
//! Invariant: what was read is what these programs get, or there is an error among the findings.

use std::collections::BTreeMap;

use serde_json::error::Category;

use crate::diagnostic::{Code, Diagnostic, Place};
use crate::findings::{Findings, excerpt};
use crate::seccomp::source::{Kind, Source, Value};
use crate::seccomp::vocabulary;

/// Deeper, Go refuses a document ("exceeded max depth", encoding/json/scanner.go).
const DEEPEST: usize = 10_000;

/// What an author wrote.
#[derive(Debug)]
pub(crate) struct Written<'a> {
    /// What containerd reads of it, but for the rules.
    pub(crate) plain: LinuxSeccomp<'a>,
    /// `defaultErrno`, unless it is empty.
    pub(crate) default_errno: Option<Word<'a>>,
    /// `archMap`, unless it is empty.
    pub(crate) arch_map: Option<ArchMap<'a>>,
    pub(crate) rules: Vec<WrittenRule<'a>>,
}

impl Written<'_> {
    /// Whether it says nothing that containerd would not read.
    pub(crate) fn is_plain(&self) -> bool {
        self.default_errno.is_none()
            && self.arch_map.is_none()
            && self.rules.iter().all(WrittenRule::is_plain)
    }
}

/// The architectures that are allowed on nodes of each.
#[derive(Debug)]
pub(crate) struct ArchMap<'a> {
    pub(crate) at: At<'a>,
    pub(crate) entries: Vec<ArchEntry<'a>>,
}

/// One element of `archMap`.
#[derive(Debug)]
pub(crate) struct ArchEntry<'a> {
    pub(crate) at: At<'a>,
    /// That of nodes.
    pub(crate) architecture: Option<Word<'a>>,
    /// Those that are allowed besides.
    pub(crate) others: Vec<Word<'a>>,
}

/// One element of `syscalls`.
#[derive(Debug)]
pub(crate) struct WrittenRule<'a> {
    /// What containerd reads of it.
    pub(crate) plain: Rule<'a>,
    /// `name`, unless it is empty.
    pub(crate) name: Option<Word<'a>>,
    /// `errno`, unless it is empty.
    pub(crate) errno: Option<Word<'a>>,
    pub(crate) includes: Filter<'a>,
    pub(crate) excludes: Filter<'a>,
}

impl WrittenRule<'_> {
    fn is_plain(&self) -> bool {
        let is_empty = |filter: &Filter<'_>| {
            filter.arches.is_empty() && filter.caps.is_empty() && filter.min_kernel.is_none()
        };
        self.name.is_none() && self.errno.is_none() && is_empty(&self.includes) && is_empty(&self.excludes)
    }
}

/// `includes` or `excludes`: where a rule is to hold, or not to.
#[derive(Debug, Default)]
pub(crate) struct Filter<'a> {
    pub(crate) arches: Vec<Word<'a>>,
    pub(crate) caps: Vec<Word<'a>>,
    pub(crate) min_kernel: Option<Word<'a>>,
}

/// What the runtimes make of a document: `LinuxSeccomp` of the OCI runtime specification, each part with its
/// place.
#[derive(Debug, Default)]
pub(crate) struct LinuxSeccomp<'a> {
    /// Whether a default action stands there, readable or not.
    pub(crate) has_default_action: bool,
    pub(crate) default_action: Option<Word<'a>>,
    pub(crate) default_errno: Option<u64>,
    pub(crate) architectures: Vec<Word<'a>>,
    pub(crate) flags: Vec<Word<'a>>,
    pub(crate) listener_path: Option<Word<'a>>,
    pub(crate) listener_metadata: Option<Word<'a>>,
    pub(crate) rules: Vec<Rule<'a>>,
    pub(crate) left_out: LeftOut<'a>,
}

impl<'a> LinuxSeccomp<'a> {
    /// The rules for the system call `name`.
    pub(crate) fn rules_for(&self, name: &str) -> impl Iterator<Item = &Rule<'a>> {
        self.rules.iter().filter(move |rule| rule.names.iter().any(|other| other.text == name))
    }
}

/// What is written for other nodes or containers.
#[derive(Debug, Default)]
pub(crate) struct LeftOut<'a> {
    pub(crate) architectures: Vec<Word<'a>>,
    /// Rules, each with what it would need.
    pub(crate) rules: Vec<(Rule<'a>, Unmet)>,
}

/// What a rule would need in order to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unmet {
    /// Another architecture or kernel.
    Node,
    /// Other capabilities than containers have by default.
    Capabilities,
}

/// What the runtimes read of an element of `syscalls`.
#[derive(Debug)]
pub(crate) struct Rule<'a> {
    pub(crate) at: At<'a>,
    /// Whether no error was found in reading it: if not, what seems to be missing may stand there in a form
    /// that nobody reads, and the rule may be meant to hold only sometimes.
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
    /// What is compared with, for `SCMP_CMP_MASKED_EQ`; `value` is the mask.
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
    pub(crate) findings: Findings,
}

/// What may stand in an object.
struct Fields {
    /// What is read.
    read: &'static [&'static str],
    /// What authors write besides, and means nothing.
    ignored: &'static [&'static str],
    /// What to say of anything else.
    otherwise: Code,
}

const DOCUMENT: Fields = Fields {
    read: &[
        "defaultAction",
        "defaultErrnoRet",
        "defaultErrno",
        "architectures",
        "archMap",
        "flags",
        "listenerPath",
        "listenerMetadata",
        "syscalls",
    ],
    ignored: &["comment", "$schema"],
    otherwise: Code::UnknownField,
};

const ARCH_ENTRY: Fields = Fields {
    read: &["architecture", "subArchitectures"],
    ignored: &["comment"],
    otherwise: Code::UnknownField,
};

const RULE: Fields = Fields {
    read: &["name", "names", "action", "errnoRet", "errno", "args", "includes", "excludes"],
    ignored: &["comment"],
    otherwise: Code::UnknownField,
};

const FILTER: Fields = Fields {
    read: &["arches", "caps", "minKernel"],
    ignored: &["comment"],
    otherwise: Code::UnknownCondition,
};

const CONDITION: Fields = Fields {
    read: &["index", "value", "valueTwo", "op"],
    ignored: &["comment"],
    otherwise: Code::UnknownField,
};

/// The members of an object that are read and that are not `null`, by their names in the specifications.
type Members<'a> = BTreeMap<&'static str, At<'a>>;

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { source: Source::new(text), findings: Findings::default() }
    }

    /// Reads the document; none if there is nothing in it that could be looked at further.
    pub(crate) fn read(&mut self) -> Option<Written<'a>> {
        let root = match self.source.root() {
            Ok(root) => At { value: root, path: "$".to_owned() },
            Err(error) => {
                self.findings.told.push(no_json(self.source, &error));
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
        let plain = LinuxSeccomp {
            has_default_action: fields.contains_key("defaultAction"),
            default_action: self.word(fields.get("defaultAction")),
            default_errno: self.number(fields.get("defaultErrnoRet")).map(|(number, _)| number),
            architectures: self.words(fields.get("architectures")),
            flags: self.words(fields.get("flags")),
            listener_path: self.word(fields.get("listenerPath")),
            listener_metadata: self.word(fields.get("listenerMetadata")),
            ..LinuxSeccomp::default()
        };
        Some(Written {
            plain,
            default_errno: self.text(fields.get("defaultErrno")),
            arch_map: self.arch_map(fields.get("archMap")),
            rules: self.list(fields.get("syscalls"), Self::rule),
        })
    }

    /// Adds a finding, unless there are plenty of its severity.
    pub(crate) fn find(&mut self, code: Code, at: &At<'a>, message: String, help: &'static str) {
        self.findings.add(code, || self.source.place(at.value, at.path.clone()), message, help);
    }

    /// The one of `words` that `word` was probably meant to be. None if a finding about it is not told: to
    /// compare many words takes long.
    pub(crate) fn suggestion(
        &self,
        code: Code,
        word: &str,
        words: impl Iterator<Item = &'static str>,
    ) -> Option<&'static str> {
        self.findings.is_told(code).then(|| vocabulary::suggestion(word, words))?
    }

    fn arch_map(&mut self, at: Option<&At<'a>>) -> Option<ArchMap<'a>> {
        let entries = self.list(at, Self::arch_entry);
        at.filter(|_| !entries.is_empty()).map(|at| ArchMap { at: at.clone(), entries })
    }

    fn arch_entry(&mut self, at: &At<'a>) -> Option<ArchEntry<'a>> {
        let fields = self.object(at, &ARCH_ENTRY)?;
        let others = self.words(fields.get("subArchitectures"));
        let architecture = match fields.get("architecture") {
            Some(at) => Some(self.word_at(at)?),
            None => None,
        };
        Some(ArchEntry { at: at.clone(), architecture, others })
    }

    /// Whether an error was found so far.
    pub(crate) fn has_errors(&self) -> bool {
        self.findings.errors > 0
    }

    fn rule(&mut self, at: &At<'a>) -> Option<WrittenRule<'a>> {
        let errors = self.findings.errors;
        let fields = self.object(at, &RULE)?;
        let mut plain = Rule {
            at: at.clone(),
            is_readable: true,
            names: self.words(fields.get("names")),
            action: self.word(fields.get("action")),
            errno: self.number(fields.get("errnoRet")),
            conditions: self.list(fields.get("args"), Self::condition),
        };
        let (name, errno) = (self.text(fields.get("name")), self.text(fields.get("errno")));
        let (includes, excludes) = (self.filter(fields.get("includes")), self.filter(fields.get("excludes")));
        plain.is_readable = errors == self.findings.errors;
        Some(WrittenRule { plain, name, errno, includes, excludes })
    }

    fn filter(&mut self, at: Option<&At<'a>>) -> Filter<'a> {
        let Some(fields) = at.and_then(|at| self.object(at, &FILTER)) else { return Filter::default() };
        Filter {
            arches: self.words(fields.get("arches")),
            caps: self.words(fields.get("caps")),
            min_kernel: self.word(fields.get("minKernel")),
        }
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
        let names = || known.read.iter().chain(known.ignored).copied();
        for member in at.value.members().unwrap_or_default() {
            let key_at = At { value: member.place, path: format!("{}.{}", at.path, excerpt(&member.key)) };
            let Some(name) = names().find(|name| is_same_key(name, &member.key)) else {
                self.unknown_field(known.otherwise, &key_at, &member.key, names());
                continue;
            };
            if name != member.key {
                let message =
                    format!("{:?} is read as {name:?}: Go does not distinguish case in keys", member.key);
                self.find(Code::KeyCase, &key_at, message, "write it as the specification does");
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

    /// A text that means nothing if it is empty.
    fn text(&mut self, at: Option<&At<'a>>) -> Option<Word<'a>> {
        self.word(at).filter(|word| !word.text.is_empty())
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

    fn unknown_field(
        &mut self,
        code: Code,
        at: &At<'a>,
        key: &str,
        known: impl Iterator<Item = &'static str>,
    ) {
        let meant = self
            .suggestion(code, key, known)
            .map(|name| format!("; did you mean {name:?}?"))
            .unwrap_or_default();
        let message = format!("no runtime reads {:?}{meant}", excerpt(key));
        self.find(code, at, message, "correct or remove it");
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

fn no_json(source: Source<'_>, error: &serde_json::Error) -> Diagnostic {
    let start = source.text().trim_start();
    let help = match error.classify() {
        Category::Eof if start.is_empty() => "the document is empty: write a profile into it",
        Category::Eof => "the document ends too early: copy all of it, and close what is open",
        _ if start.starts_with('\u{feff}') => {
            "the document begins with a byte order mark: save it as UTF-8 without one"
        }
        _ if start.contains('\0') => "the document has zero bytes, as UTF-16 has: save it as UTF-8",
        _ if !start.starts_with('{') => {
            "a profile is a JSON object, which begins with {: neither YAML nor comments nor AppArmor texts are read"
        }
        _ => "comments, single quotes, trailing commas and trailing data are not JSON",
    };
    let text = error.to_string();
    // serde_json repeats the position at the end of the text.
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned();
    // It counts columns from 1, and says 0 for the place before the first.
    let place = Place { position: Some((error.line(), error.column().max(1))), path: "$".to_owned() };
    Diagnostic { code: Code::InvalidJson, place, message, help }
}
