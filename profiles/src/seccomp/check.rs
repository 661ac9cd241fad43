//! Says what is wrong with a document: what the runtimes refuse, what they would do otherwise than its author
//! means, and what they do in silence.
//!
//! What is said of runc is from its `libcontainer/specconv` and `libcontainer/seccomp`, what is said of
//! libseccomp was tried with 2.5.4.
//!
//! Invariant: all findings come in one pass, in the order of the document, and each has the place that it is
//! about.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::findings::excerpt;
use crate::platform::Platform;
use crate::seccomp::compile::{EPERM, default_action, rule_action};
use crate::seccomp::document::{At, LinuxSeccomp, Reader, Rule, Unmet, Word};
use crate::seccomp::oci;
use crate::seccomp::resolve::resolve;
use crate::seccomp::vocabulary::{ACTIONS, ARCHITECTURES, FLAGS, OPERATORS, RECENT_FLAGS, WITH_ERRNO};

mod effect;
mod filter;

pub use effect::effect;

/// A ConfigMap holds at most 1 MiB, and so has no document that is longer, in bytes. On a node none is longer
/// either: what is, is not read there.
pub const LARGEST: usize = 1 << 20;
const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const NOTIFY: &str = "SCMP_ACT_NOTIFY";
const ENOSYS: u64 = 38;
/// A system call has six arguments.
const LAST_ARGUMENT: u64 = 5;
/// libseccomp takes no higher error number (`sys_chk_seccomp_action`, src/system.c).
const HIGHEST_ERRNO: u64 = 4_094;
/// What runc calls after it has put the filter in force, where a refusal keeps the container from starting,
/// also with `allowPrivilegeEscalation: false` (`standard_init_linux.go` and `utils/utils_unix.go` of its
/// libcontainer): Go's threads wake each other, descriptors are listed and closed, the FIFO is opened and
/// written, and the program is executed.
const TO_START: &[&str] = &["close", "execve", "fstatfs", "futex", "getdents64", "openat", "write"];
/// Without it, no program ends.
const TO_END: &str = "exit_group";

/// What there is to say of a document, and what it is on one kind of node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// Every finding, in the order of the document. Empty: nothing to say.
    pub findings: Vec<Diagnostic>,
    /// The document in the form that every runtime reads, if it is written in Docker's or Podman's and no
    /// finding is an error. None otherwise: if it is accepted, then as it stands there.
    pub resolved: Option<String>,
}

/// Judges `text` for nodes of `platform`.
#[must_use]
pub fn check(text: &str, platform: Platform) -> Checked {
    let mut reader = Reader::new(text);
    let mut resolved = None;
    if let Some(written) = reader.read() {
        let is_plain = written.is_plain();
        let document = resolve(&mut reader, written, platform);
        let mut checker = Checker { reader: &mut reader, document: &document };
        checker.all(platform);
        let is_refused = reader.findings.told.iter().any(|finding| finding.severity() == Severity::Error);
        resolved = (!is_plain && !is_refused).then(|| oci::write(&document));
        if let Some(longer) = resolved.take_if(|text| text.len() > LARGEST) {
            reader.findings.told.push(too_long(longer.len()));
        }
    }
    Checked { findings: reader.findings.end(), resolved }
}

struct Checker<'c, 'a> {
    reader: &'c mut Reader<'a>,
    document: &'c LinuxSeccomp<'a>,
}

impl<'a> Checker<'_, 'a> {
    fn all(&mut self, platform: Platform) {
        self.header();
        self.each_rule();
        self.rules_together();
        self.what_programs_need();
        self.masks();
        self.names();
        self.lost_refusals();
        self.filter(platform);
    }

    fn header(&mut self) {
        match &self.document.default_action {
            Some(action) if !action.text.is_empty() => {
                self.word(action, "action", ACTIONS, Code::UnknownAction);
                if action.text == NOTIFY {
                    let message = format!("runc does not take {NOTIFY} as the default action");
                    self.reader.find(
                        Code::NotifyMisuse,
                        &action.at,
                        message,
                        "notify of single system calls",
                    );
                }
            }
            None if self.document.has_default_action => {}
            _ => self.reader.findings.told.push(without_default(!self.document.rules.is_empty())),
        }
        let document = self.document;
        for architecture in document.architectures.iter().chain(&document.left_out.architectures) {
            self.word(architecture, "architecture", ARCHITECTURES, Code::UnknownArchitecture);
        }
        for flag in &self.document.flags {
            if RECENT_FLAGS.contains(&flag.text.as_str()) {
                let message = "runc refuses the flag before version 1.5, and with a libseccomp before 2.6: the container \
                               would not start there";
                self.find(Code::RecentFlag, &flag.at, message, "see runc --version on your nodes");
            } else {
                self.word(flag, "flag", FLAGS, Code::UnknownFlag);
            }
        }
        if let Some(default) = &self.document.default_action {
            self.errno(default, self.document.default_errno, &default.at);
        }
    }

    fn each_rule(&mut self) {
        let document = self.document;
        for rule in document.rules.iter().chain(document.left_out.rules.iter().map(|(rule, _)| rule)) {
            match &rule.action {
                Some(action) => self.action(rule, action),
                None if rule.is_readable => {
                    self.find(Code::UnknownAction, &rule.at, "the rule has no action", "add one");
                }
                None => {}
            }
            if rule.names.is_empty() && rule.is_readable {
                let message = "the rule is for no system call";
                self.find(Code::EmptyRule, &rule.at, message, "add \"names\", or remove the rule");
            }
            self.conditions(rule);
        }
    }

    fn action(&mut self, rule: &Rule<'a>, action: &Word<'a>) {
        self.word(action, "action", ACTIONS, Code::UnknownAction);
        if action.text == NOTIFY {
            self.notify(rule, action);
        }
        if let Some((errno, at)) = &rule.errno {
            self.errno(action, Some(*errno), at);
        }
        if let Some((_, at)) = &rule.errno
            && !WITH_ERRNO.contains(&action.text.as_str())
        {
            let message = format!(
                "errnoRet means nothing for {}: runc ignores it, crun refuses it",
                excerpt(&action.text)
            );
            self.reader.find(Code::UnusedErrno, at, message, "remove it");
        }
        if is_default(self.document, rule) {
            let message = "the rule does what the default action does";
            self.find(Code::RedundantRule, &rule.at, message, "remove it, or change its action");
        }
    }

    fn errno(&mut self, action: &Word<'a>, errno: Option<u64>, at: &At<'a>) {
        let Some(errno) = errno.filter(|errno| *errno > HIGHEST_ERRNO && action.text == ERRNO) else {
            return;
        };
        let message = format!("libseccomp takes no error number above {HIGHEST_ERRNO}, and this is {errno}");
        self.reader.find(
            Code::ErrnoRange,
            at,
            message,
            "see errno(3) for the numbers, such as 38 for ENOSYS",
        );
    }

    fn notify(&mut self, rule: &Rule<'a>, action: &Word<'a>) {
        if self.document.listener_path.as_ref().is_none_or(|path| path.text.is_empty()) {
            let message = format!("{NOTIFY} needs a \"listenerPath\"");
            self.reader.find(
                Code::NotifyMisuse,
                &action.at,
                message,
                "add the path of the socket of your agent",
            );
        }
        if let Some(write) = rule.names.iter().find(|name| name.text == "write") {
            let message = "runc refuses to notify of write: it would wait for itself";
            self.find(Code::NotifyMisuse, &write.at, message, "leave write out of the rule");
        }
    }

    fn conditions(&mut self, rule: &Rule<'a>) {
        let mut indexes = BTreeSet::new();
        for condition in &rule.conditions {
            match &condition.operator {
                Some(operator) => self.word(operator, "operator", OPERATORS, Code::UnknownOperator),
                None => {
                    self.find(Code::UnknownOperator, &condition.at, "the condition has no \"op\"", "add one");
                }
            }
            if condition.index > LAST_ARGUMENT {
                let message = format!(
                    "there is no argument {}: they are counted from 0 to {LAST_ARGUMENT}",
                    condition.index
                );
                self.reader.find(Code::ArgumentIndex, &condition.at, message, "correct the index");
            }
            if !indexes.insert(condition.index) {
                let message = format!(
                    "runc and crun make a rule of its own of each condition when two are on one argument, here {}: that any of \
                     them holds is enough",
                    condition.index
                );
                self.reader.find(
                    Code::AnyCondition,
                    &condition.at,
                    message,
                    "use one SCMP_CMP_MASKED_EQ, or list the values",
                );
            }
        }
    }

    /// What rules for the same system call do to each other.
    fn rules_together(&mut self) {
        let document = self.document;
        let mut calls: BTreeMap<&str, Call<'_>> = BTreeMap::new();
        let effective = |rule: &&Rule<'a>| rule.is_readable && !is_default(document, rule);
        for rule in document.rules.iter().filter(effective) {
            for name in &rule.names {
                if let Some(problem) = calls.entry(&name.text).or_default().add(rule) {
                    let message = format!("{}: {problem}", excerpt(&name.text));
                    self.reader.find(Code::ClashingRules, &name.at, message, "keep one rule for each case");
                }
            }
        }
    }

    fn what_programs_need(&mut self) {
        let Some(default) = &self.document.default_action else { return };
        if !refuses(&default.text) || !self.document.rules.iter().any(|rule| has_action(rule, ALLOW)) {
            return;
        }
        let document = self.document;
        let is_missing = |name: &&&str| document.rules_for(name).all(|rule| has_refusal(rule));
        let missing: Vec<&str> = TO_START.iter().filter(is_missing).copied().collect();
        if !missing.is_empty() {
            let message = format!(
                "runc calls {} after the filter is in force, and the document does not allow it: containers would not start \
                 (crun needs execve alone)",
                missing.join(", ")
            );
            self.reader.find(Code::MissingCall, &default.at, message, "allow it");
        }
        if is_missing(&&TO_END) {
            let message = format!("{TO_END} is not allowed: programs can't end");
            self.reader.find(Code::MissingCall, &default.at, message, "allow it");
        }
        self.clone3(default);
    }

    /// Where `clone` is filtered by its flags, `clone3` can't be: its flags are in memory. The C library
    /// falls back to `clone` if the kernel says that there is no `clone3`, and gives up on any other error
    /// (glibc 2.34, clone-internal.c).
    fn clone3(&mut self, default: &Word<'a>) {
        let document = self.document;
        let is_filtered =
            document.rules_for("clone").any(|rule| has_action(rule, ALLOW) && !rule.conditions.is_empty());
        let own = document.rules_for("clone3").next();
        let (action, errno) = match own {
            Some(rule) => (rule.action.as_ref(), rule.errno.as_ref().map(|(errno, _)| *errno)),
            None => (Some(default), document.default_errno),
        };
        let is_errno = action.is_some_and(|action| action.text == ERRNO);
        if is_filtered && is_errno && errno.unwrap_or(EPERM) != ENOSYS {
            let message = "clone3 fails with another error than ENOSYS, so the C library does not fall back to clone: \
                           programs can't start threads";
            let at = own.map_or(&default.at, |rule| &rule.at);
            self.find(
                Code::Clone3,
                at,
                message,
                "add a rule for clone3: SCMP_ACT_ERRNO with \"errnoRet\": 38",
            );
        }
    }

    /// A rule that refuses is left out for a container with further capabilities as well, which it may be
    /// meant for.
    fn lost_refusals(&mut self) {
        let document = self.document;
        let is_allowed = document.default_action.as_ref().is_some_and(|default| !refuses(&default.text));
        let is_lost = |rule: &Rule<'a>| rule.action.as_ref().is_some_and(|action| refuses(&action.text));
        for (rule, unmet) in &document.left_out.rules {
            if is_allowed && *unmet == Unmet::Capabilities && is_lost(rule) {
                let message = "the rule does not hold for containers with the default capabilities, so it refuses \
                               nothing to any container";
                self.find(Code::LostRefusal, &rule.at, message, "refuse without a condition on capabilities");
            }
        }
    }

    fn word(&mut self, word: &Word<'a>, what: &str, known: &'static [&'static str], code: Code) {
        if !known.contains(&word.text.as_str()) {
            let meant = self.reader.suggestion(code, &word.text, known.iter().copied());
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            let message = format!(
                "{:?} is no {what} that runc knows: the container would not start{meant}",
                excerpt(&word.text)
            );
            self.reader.find(code, &word.at, message, "correct it");
        }
    }

    fn find(&mut self, code: Code, at: &At<'a>, message: &str, help: &'static str) {
        self.reader.find(code, at, message.to_owned(), help);
    }
}

/// What was seen of the rules for one system call.
#[derive(Default)]
struct Call<'d> {
    /// What the first rule without conditions does.
    always: Option<Effect<'d>>,
    /// What rules with conditions do.
    sometimes: BTreeSet<Effect<'d>>,
    /// The arguments that rules compare with `SCMP_CMP_NE` and nothing else, and the value of the first such
    /// rule.
    unless: BTreeMap<(u64, Effect<'d>), u64>,
}

/// An action and what it returns.
type Effect<'d> = (&'d str, u64);

impl<'d> Call<'d> {
    /// Adds a rule, and says what is lost by it beside those before, if anything is.
    fn add(&mut self, rule: &'d Rule<'_>) -> Option<&'static str> {
        let errno = rule.errno.as_ref().map_or(EPERM, |(errno, _)| *errno);
        let effect = (rule.action.as_ref()?.text.as_str(), errno);
        let is_always_other = self.always.is_some_and(|always| always != effect);
        if rule.conditions.is_empty() {
            self.always.get_or_insert(effect);
            let is_sometimes_other = self.sometimes.iter().any(|sometimes| *sometimes != effect);
            return match (is_always_other, is_sometimes_other) {
                (true, _) => Some("an earlier rule has another action, and libseccomp keeps the first"),
                (false, true) => Some(BARE_WINS),
                (false, false) => None,
            };
        }
        self.sometimes.insert(effect);
        let excludes_nothing = excluded(rule)
            .is_some_and(|(index, value)| *self.unless.entry((index, effect)).or_insert(value) != value);
        match (is_always_other, excludes_nothing) {
            (true, _) => Some(BARE_WINS),
            (false, true) => Some("two rules with SCMP_CMP_NE on one argument: one of them always holds"),
            (false, false) => None,
        }
    }
}

const BARE_WINS: &str =
    "another rule is for it without conditions, and libseccomp then ignores those with conditions";

/// The argument that the rule compares with `SCMP_CMP_NE`, and the value, if that is its only condition.
fn excluded(rule: &Rule<'_>) -> Option<(u64, u64)> {
    let [condition] = rule.conditions.as_slice() else { return None };
    let is_exclusion = condition.operator.as_ref().is_some_and(|operator| operator.text == "SCMP_CMP_NE");
    is_exclusion.then_some((condition.index, condition.value))
}

/// runc skips such a rule; libseccomp alone would refuse it (EACCES).
fn is_default(document: &LinuxSeccomp<'_>, rule: &Rule<'_>) -> bool {
    default_action(document).is_some_and(|default| rule_action(rule) == Some(default))
}

fn has_refusal(rule: &Rule<'_>) -> bool {
    rule.action.as_ref().is_some_and(|action| refuses(&action.text))
}

fn refuses(action: &str) -> bool {
    !matches!(action, ALLOW | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE" | NOTIFY)
}

fn has_action(rule: &Rule<'_>, action: &str) -> bool {
    rule.action.as_ref().is_some_and(|own| own.text == action)
}

fn too_long(length: usize) -> Diagnostic {
    Diagnostic {
        code: Code::FilterTooLarge,
        place: Place::at("$"),
        message: format!(
            "it has {length} bytes in the form that every runtime reads, and no more than {LARGEST} are put on nodes"
        ),
        help: "name each system call once",
    }
}

fn without_default(has_rules: bool) -> Diagnostic {
    let message = if has_rules {
        "there is no default action, so runc would not start the container"
    } else {
        "there is no default action, so containerd and runc would run the container unconfined"
    };
    Diagnostic {
        code: Code::MissingDefaultAction,
        place: Place::at("$.defaultAction"),
        message: message.to_owned(),
        help: "add one, such as \"defaultAction\": \"SCMP_ACT_ERRNO\"",
    }
}

#[cfg(test)]
mod tests;
