//! What shows only when the filter is made: what libseccomp refuses, does not know, or turns into something
//! else.
//!
//! What is said of libseccomp was tried with 2.5.4, in part against the kernel (`compile/tests`).

use std::collections::{BTreeMap, BTreeSet};

use libseccomp::ScmpAction;
use libseccomp::error::SeccompErrno;

use super::Checker;
use crate::diagnostic::Code;
use crate::findings::{MOST, excerpt};
use crate::platform::Platform;
use crate::seccomp::calls::{self, Name};
use crate::seccomp::compile::{Failure, Filter, Rules, default_action};
use crate::seccomp::document::Word;
use crate::seccomp::meaning::{Difference, MOST_STEPS, differences};

/// The kernel takes no filter with more instructions (`BPF_MAXINSNS`, `include/uapi/linux/bpf_common.h`).
const MOST_INSTRUCTIONS: usize = 4_096;
/// How many unknown names are looked for: one more than are told. And for how many it is found out what was
/// meant.
const MOST_UNKNOWN: usize = MOST + 1;
const MOST_MEANT: usize = 20;

impl<'c, 'a> Checker<'c, 'a> {
    /// Names that mean nothing to libseccomp: runtimes go on without their rules.
    pub(super) fn names(&mut self) {
        let (version, document) = (calls::version(), self.document);
        let mut told: BTreeMap<&str, Name> = BTreeMap::new();
        let mut unknown = 0;
        for rule in &document.rules {
            let mut newer: Vec<(&Word<'a>, &'static str)> = Vec::new();
            for name in &rule.names {
                if name.text.is_empty() {
                    let message =
                        "an empty text is no system call: runc refuses it, and the container would not start";
                    self.find(Code::RefusedRule, &name.at, message, "remove it");
                } else if !told.contains_key(name.text.as_str()) && unknown < MOST_UNKNOWN {
                    let what = calls::tell(&name.text);
                    told.insert(&name.text, what);
                    match what {
                        Name::Known => {}
                        Name::Newer(release) => newer.push((name, release)),
                        Name::Unknown => {
                            let meant = if unknown < MOST_MEANT { calls::meant(&name.text) } else { None };
                            unknown += 1;
                            self.unknown_name(name, meant, &version);
                        }
                    }
                }
            }
            self.newer_names(&newer, &version);
        }
    }

    fn unknown_name(&mut self, name: &Word<'a>, meant: Option<&str>, version: &str) {
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        let message = format!(
            "{:?} is no system call that libseccomp {version} knows: runc ignores it in silence, crun warns, and the default \
             action is taken{meant}",
            excerpt(&name.text)
        );
        self.reader.find(Code::UnknownSyscall, &name.at, message, "correct or remove it");
    }

    fn newer_names(&mut self, newer: &[(&Word<'a>, &'static str)], version: &str) {
        let Some((first, _)) = newer.first() else { return };
        let names: Vec<String> =
            newer.iter().map(|(name, release)| format!("{} (Linux {release})", name.text)).collect();
        let message = format!(
            "{}: newer than libseccomp {version}; a runtime that has no newer one ignores the name, and the default action is \
             taken",
            names.join(", ")
        );
        self.reader.find(
            Code::NewerSyscall,
            &first.at,
            message,
            "see runc --version for what your nodes have, or leave it as it is if that does no harm",
        );
    }

    /// The filter itself. For a document with errors there is none.
    pub(super) fn filter(&mut self, platform: Platform) {
        if self.reader.has_errors() {
            return;
        }
        match self.compile(platform) {
            Ok(()) | Err(Failure::Unknown) => {}
            Err(Failure::TooMany) => {
                let message = format!(
                    "there are more rules than are compiled: the kernel takes no filter with more than {MOST_INSTRUCTIONS} \
                     instructions, for all architectures together"
                );
                self.too_large(message);
            }
            Err(Failure::Architecture(word)) => {
                let message = format!(
                    "{} has another byte order than {}, which is in every filter of such a node: libseccomp refuses to mix \
                     them, and the container would not start",
                    word.text,
                    platform.architecture.scmp()
                );
                self.reader.find(
                    Code::ByteOrder,
                    &word.at,
                    message,
                    "list architectures that one kind of node can run",
                );
            }
            Err(Failure::Tangled(name)) => {
                let message = format!(
                    "{}: with these rules, libseccomp takes long or never comes to an end, here and in the runtime",
                    excerpt(&name.text)
                );
                let help = "compare with SCMP_CMP_EQ or SCMP_CMP_MASKED_EQ, or write one condition a rule, on the same argument";
                self.reader.find(Code::RefusedRule, &name.at, message, help);
            }
            Err(Failure::Rule(name, errno)) => self.refused(name, errno),
        }
    }

    /// Makes the whole filter only if it may be too large: else those of the system calls with conditions say
    /// it all.
    fn compile(&mut self, platform: Platform) -> Result<(), Failure<'c, 'a>> {
        let document = self.document;
        let rules = Rules::of(document, platform.architecture)?;
        let filters = rules.by_call()?;
        if !rules.is_small(&filters, MOST_INSTRUCTIONS) {
            let program = rules.whole()?.program;
            self.size(program.len(), rules.prelude());
        }
        if let Some(default) = default_action(document) {
            let mut steps = MOST_STEPS;
            for filter in &filters {
                self.differences(filter, default, platform, &mut steps);
            }
        }
        Ok(())
    }

    fn size(&mut self, program: usize, prelude: usize) {
        let size = program + prelude;
        if size > MOST_INSTRUCTIONS {
            let message = format!(
                "the filter has {size} instructions, of which {prelude} are runc's own, and the kernel takes \
                 {MOST_INSTRUCTIONS}: the container would not start"
            );
            self.too_large(message);
        }
    }

    fn too_large(&mut self, message: String) {
        let Some(default) = &self.document.default_action else { return };
        let help = "list fewer architectures, replace conditions by SCMP_CMP_MASKED_EQ, or choose the default action that \
                    needs fewer rules";
        self.reader.find(Code::FilterTooLarge, &default.at, message, help);
    }

    fn refused(&mut self, name: &Word<'a>, errno: Option<SeccompErrno>) {
        let why = match errno {
            Some(SeccompErrno::EEXIST) => "another rule has the same conditions and another action",
            _ => "it does not fit those before",
        };
        let message = format!(
            "{}: libseccomp refuses the rule, because {why}: the container would not start",
            excerpt(&name.text)
        );
        self.reader.find(Code::RefusedRule, &name.at, message, "keep one rule for each case");
    }

    fn differences(
        &mut self,
        filter: &Filter<'_, 'a>,
        default: ScmpAction,
        platform: Platform,
        steps: &mut usize,
    ) {
        for difference in differences(filter, default, platform.architecture, steps) {
            let Difference { name, arguments, meant, done } = difference;
            let arguments: Vec<String> =
                arguments.iter().map(|(index, value)| format!("argument {index} = {value:#x}")).collect();
            let (arguments, name_text) = (arguments.join(" and "), excerpt(&name.text));
            let (code, message, help) = if meant.contains(&done) {
                let message = format!(
                    "{name_text}: with {arguments}, rules with different actions hold, and libseccomp takes {}",
                    shown(done)
                );
                (Code::ClashingRules, message, "keep one rule for each case")
            } else {
                let message = format!(
                    "{name_text}: with {arguments}, the rules say {}, and the filter that libseccomp {} makes of them does {}",
                    meant.into_iter().map(shown).collect::<Vec<_>>().join(" or "),
                    calls::version(),
                    shown(done)
                );
                (
                    Code::MiscompiledRules,
                    message,
                    "write rules of which no two hold at once, or with one condition each",
                )
            };
            if !self.is_told(name, code) {
                self.reader.find(code, &name.at, message, help);
            }
        }
    }

    /// Whether such a finding on a system call of this name was told already.
    fn is_told(&self, name: &Word<'a>, code: Code) -> bool {
        let start = format!("{}: ", excerpt(&name.text));
        self.reader
            .findings
            .told
            .iter()
            .any(|finding| finding.code == code && finding.message.starts_with(&start))
    }

    /// Bits that a mask takes away before they are compared.
    pub(super) fn masks(&mut self) {
        let mut told = BTreeSet::new();
        for (index, rule) in self.document.rules.iter().enumerate() {
            for condition in &rule.conditions {
                let is_masked =
                    condition.operator.as_ref().is_some_and(|operator| operator.text == "SCMP_CMP_MASKED_EQ");
                let is_lost = condition.value_two & !condition.value != 0;
                if is_masked && (is_lost || condition.value == 0) && told.insert(index) {
                    let message = format!(
                        "libseccomp compares argument {} with valueTwo ({:#x}) only in the bits of the mask, value ({:#x}), \
                         and ignores the others{}",
                        condition.index,
                        condition.value_two,
                        condition.value,
                        if condition.value == 0 { ": the condition always holds" } else { "" }
                    );
                    let help = "\"value\" is the mask, \"valueTwo\" what is to be left of the argument";
                    self.reader.find(Code::MaskedBits, &condition.at, message, help);
                }
            }
        }
    }
}

/// The word for what a filter returns.
fn shown(code: u32) -> String {
    let number = code & 0xffff;
    match code & 0xffff_0000 {
        0x8000_0000 => "SCMP_ACT_KILL_PROCESS".to_owned(),
        0x0003_0000 => "SCMP_ACT_TRAP".to_owned(),
        0x0005_0000 => format!("SCMP_ACT_ERRNO ({number})"),
        0x7fc0_0000 => "SCMP_ACT_NOTIFY".to_owned(),
        0x7ff0_0000 => format!("SCMP_ACT_TRACE ({number})"),
        0x7ffc_0000 => "SCMP_ACT_LOG".to_owned(),
        0x7fff_0000 => "SCMP_ACT_ALLOW".to_owned(),
        _ => "SCMP_ACT_KILL_THREAD".to_owned(),
    }
}
