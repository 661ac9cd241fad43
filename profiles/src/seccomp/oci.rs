//! Writes a document as the OCI runtime specification has it, which every runtime reads in the same way.
//!
//! Invariant: equal documents are equal bytes.

use serde::Serialize;

use crate::seccomp::document::{Condition, LinuxSeccomp, Rule, Word};

/// `LinuxSeccomp` of the OCI runtime specification (specs-go/config.go).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Seccomp<'d> {
    default_action: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_errno_ret: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<&'d str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener_path: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener_metadata: Option<&'d str>,
    syscalls: Vec<Syscall<'d>>,
}

/// `LinuxSyscall`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Syscall<'d> {
    names: Vec<&'d str>,
    action: Option<&'d str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno_ret: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Arg<'d>>,
}

/// `LinuxSeccompArg`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Arg<'d> {
    index: u64,
    value: u64,
    value_two: u64,
    op: Option<&'d str>,
}

/// `document` as JSON text, without what is left out.
#[expect(clippy::expect_used, reason = "texts, numbers and lists of them are always JSON")]
pub(crate) fn write(document: &LinuxSeccomp<'_>) -> String {
    let seccomp = Seccomp {
        default_action: text(document.default_action.as_ref()),
        default_errno_ret: document.default_errno,
        architectures: texts(&document.architectures),
        flags: texts(&document.flags),
        listener_path: text(document.listener_path.as_ref()),
        listener_metadata: text(document.listener_metadata.as_ref()),
        syscalls: document.rules.iter().map(syscall).collect(),
    };
    serde_json::to_string_pretty(&seccomp).expect("a seccomp document can be written")
}

fn syscall<'d>(rule: &'d Rule<'_>) -> Syscall<'d> {
    Syscall {
        names: texts(&rule.names),
        action: text(rule.action.as_ref()),
        errno_ret: rule.errno.as_ref().map(|(errno, _)| *errno),
        args: rule.conditions.iter().map(arg).collect(),
    }
}

fn arg<'d>(condition: &'d Condition<'_>) -> Arg<'d> {
    let Condition { index, value, value_two, operator, .. } = condition;
    Arg { index: *index, value: *value, value_two: *value_two, op: text(operator.as_ref()) }
}

fn texts<'d>(words: &'d [Word<'_>]) -> Vec<&'d str> {
    words.iter().map(|word| word.text.as_str()).collect()
}

fn text<'d>(word: Option<&'d Word<'_>>) -> Option<&'d str> {
    word.map(|word| word.text.as_str())
}
