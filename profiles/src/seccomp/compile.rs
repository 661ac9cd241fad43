//! Makes the filter of a document, as runc does.
//!
//! From runc's `libcontainer/seccomp/seccomp_linux.go` and `libcontainer/seccomp/patchbpf/enosys_linux.go`
//! (1.5): which architectures, rules and options libseccomp is given, and what is put before the program that
//! it makes.
//!
//! Invariant: no document takes long. Rules are counted before any is compiled, because libseccomp's time
//! grows with the third power of what it is given, and what it would not come to an end with it is not given
//! (`tangle`).

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::str::FromStr as _;

use libseccomp::error::{SeccompErrno, SeccompError};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

use crate::platform::Architecture;
use crate::seccomp::document::{Condition, LinuxSeccomp, Rule, Word};
use crate::seccomp::export::export;
use crate::seccomp::program::Program;
use crate::seccomp::tangle::{is_for_all, is_quick, steps};

/// What `SCMP_ACT_ERRNO` returns when nothing else is said (runc: `EPERM`).
pub(crate) const EPERM: u64 = 1;
/// More names than this make runc ask for a binary tree.
const MANY_NAMES: usize = 32;
/// How much is compiled at most, in the unit of [`weight`]. A profile with all names that libseccomp knows
/// and three architectures, which is as many as one kind of node has, weighs 1,400.
const HEAVIEST: usize = 2_000;
/// How much of that, with the actions, is compiled into one filter: its time grows with the third power of
/// the blocks that differ. Names without conditions and with one action don't.
const HEAVIEST_WHOLE: usize = 500;
/// How much is compiled into one filter where it may be several, for one architecture.
pub(crate) const BATCH: usize = 60;
/// How many rules are looked at, also when they are repetitions.
const MOST_SEEN: usize = 100_000;

/// The rules of a document, as libseccomp is given them.
#[derive(Debug)]
pub(crate) struct Rules<'d, 'a> {
    document: &'d LinuxSeccomp<'a>,
    default: ScmpAction,
    /// The node's own architecture first.
    architectures: Vec<ScmpArch>,
    parts: Vec<Part<'d, 'a>>,
    /// What [`steps`] says of them.
    steps: usize,
}

/// What the kernel would get, for all system calls or some.
#[derive(Debug)]
pub(crate) struct Filter<'d, 'a> {
    /// What libseccomp makes of the rules.
    pub(crate) program: Program,
    /// What the program is made of.
    pub(crate) parts: Vec<Part<'d, 'a>>,
}

/// A rule for one system call, as libseccomp is given it.
#[derive(Clone, Debug)]
pub(crate) struct Part<'d, 'a> {
    pub(crate) name: &'d Word<'a>,
    pub(crate) call: ScmpSyscall,
    pub(crate) action: ScmpAction,
    /// All of them have to hold.
    pub(crate) conditions: Vec<&'d Condition<'a>>,
}

/// Why there is no filter.
#[derive(Debug)]
pub(crate) enum Failure<'d, 'a> {
    /// There are more rules than are compiled.
    TooMany,
    /// An architecture can't be in one filter with the others.
    Architecture(&'d Word<'a>),
    /// libseccomp may not come to an end with this rule beside those before it: see [`steps`].
    Tangled(&'d Word<'a>),
    /// libseccomp takes no such rule beside the others.
    Rule(&'d Word<'a>, Option<SeccompErrno>),
    /// Something else: a word that is not known, or this machine lacks what it takes. It says nothing of the
    /// document.
    Unknown,
}

impl<'d, 'a> Rules<'d, 'a> {
    /// The rules of `document` on nodes of `architecture`.
    ///
    /// # Errors
    /// They are not to be compiled, for one of the reasons that [`Failure`] has.
    pub(crate) fn of(
        document: &'d LinuxSeccomp<'a>,
        architecture: Architecture,
    ) -> Result<Self, Failure<'d, 'a>> {
        let default = default_action(document).ok_or(Failure::Unknown)?;
        let native = ScmpArch::from_str(architecture.scmp()).map_err(unknown)?;
        let architectures = architectures(document, native);
        let parts = parts(document, architectures.len())?;
        let steps = steps(&parts, architectures.len()).map_err(|part| Failure::Tangled(part.name))?;
        let rules = Self { document, default, architectures, parts, steps };
        rules.empty()?;
        Ok(rules)
    }

    /// The whole filter, as the runtime makes it.
    ///
    /// # Errors
    /// libseccomp refuses a rule, or it would take long.
    pub(crate) fn whole(&self) -> Result<Filter<'d, 'a>, Failure<'d, 'a>> {
        let actions: BTreeSet<u32> = self.parts.iter().map(|part| code(part.action)).collect();
        let with_conditions: usize = self.with_conditions().map(|part| weight(&part.conditions)).sum();
        let is_heavy = (with_conditions + actions.len()) * self.architectures.len() > HEAVIEST_WHOLE;
        if is_heavy || !is_quick(self.steps, &self.parts) {
            return Err(Failure::TooMany);
        }
        self.compile(self.parts.clone())
    }

    /// Filters for the system calls that have conditions, some in each: together they take a fraction of the
    /// time, and do with their calls what the whole filter does.
    ///
    /// # Errors
    /// libseccomp refuses a rule.
    pub(crate) fn by_call(&self) -> Result<Vec<Filter<'d, 'a>>, Failure<'d, 'a>> {
        let mut by_call: BTreeMap<i32, Vec<Part<'d, 'a>>> = BTreeMap::new();
        let doubtful: BTreeSet<i32> = self.with_conditions().map(|part| part.call.into()).collect();
        for part in self.parts.iter().filter(|part| doubtful.contains(&part.call.into())) {
            by_call.entry(part.call.into()).or_default().push(part.clone());
        }
        let (mut filters, mut batch, mut weight_of_batch) = (Vec::new(), Vec::new(), 0);
        for parts in by_call.into_values() {
            let weight: usize = parts.iter().map(|part| weight(&part.conditions)).sum();
            if weight_of_batch > 0 && weight_of_batch + weight > BATCH {
                filters.push(self.compile(mem::take(&mut batch))?);
                weight_of_batch = 0;
            }
            batch.extend(parts);
            weight_of_batch += weight;
        }
        if !batch.is_empty() {
            filters.push(self.compile(batch)?);
        }
        Ok(filters)
    }

    /// Whether the whole filter surely fits, as `filters` of [`Self::by_call`] do, and libseccomp refuses
    /// nothing of it.
    pub(crate) fn is_small(&self, filters: &[Filter<'_, '_>], most: usize) -> bool {
        /// A comparison, a part of the binary tree, and an action or a jump that is too far for the
        /// comparison.
        const OF_A_NAME: usize = 3;
        /// What tells the architectures apart, loads the number, and returns the default action.
        const OF_AN_ARCHITECTURE: usize = 10;
        let bare = self.parts.iter().filter(|part| part.conditions.is_empty()).count();
        let own: usize = filters.iter().map(|filter| filter.program.len()).sum();
        // Further from each other, they need further jumps.
        let program = (OF_A_NAME * bare + OF_AN_ARCHITECTURE) * self.architectures.len() + own + own / 4;
        program + self.prelude() <= most && !self.with_conditions().any(is_for_all)
    }

    /// How many instructions runc puts before the program: where the default action refuses, a system call
    /// with a higher number than all that are named fails with ENOSYS, so that programs fall back to older
    /// ones (crun adds nothing).
    pub(crate) fn prelude(&self) -> usize {
        /// Load the architecture, skip all of this if it is none of these, and at the end skip or return the
        /// error.
        const AROUND: usize = 4;
        let Self { parts, architectures, .. } = self;
        if matches!(self.default, ScmpAction::Allow | ScmpAction::Log | ScmpAction::Trace(_)) {
            return 0;
        }
        let is_named = |architecture: ScmpArch| {
            let mut names =
                parts.iter().map(|part| ScmpSyscall::from_name_by_arch(&part.name.text, architecture));
            names.any(|call| call.is_ok_and(|call| i32::from(call) > 0))
        };
        // Both have the kernel's AUDIT_ARCH_X86_64, and share a part.
        let is_x86_64 = |architecture: ScmpArch| matches!(architecture, ScmpArch::X8664 | ScmpArch::X32);
        let named_x86_64 = architectures.iter().filter(|one| is_x86_64(**one) && is_named(**one)).count();
        // A comparison with the architecture, and its part: load the number, compare it, skip.
        let of_x86_64 =
            if architectures.iter().copied().any(is_x86_64) { [1, 5, 6][named_x86_64] } else { 0 };
        let of_others = architectures.iter().filter(|one| !is_x86_64(**one)).map(|one| {
            let is_s390 = matches!(one, ScmpArch::S390 | ScmpArch::S390X);
            1 + if is_named(*one) { 3 } else { 0 } + if is_s390 && is_named(*one) { 2 } else { 0 }
        });
        AROUND + of_x86_64 + of_others.sum::<usize>()
    }

    fn with_conditions(&self) -> impl Iterator<Item = &Part<'d, 'a>> {
        self.parts.iter().filter(|part| !part.conditions.is_empty())
    }

    fn compile(&self, parts: Vec<Part<'d, 'a>>) -> Result<Filter<'d, 'a>, Failure<'d, 'a>> {
        let mut filter = self.empty()?;
        for part in &parts {
            let comparisons: Option<Vec<ScmpArgCompare>> =
                part.conditions.iter().copied().map(comparison).collect();
            filter
                .add_rule_conditional(part.action, part.call, &comparisons.ok_or(Failure::Unknown)?)
                .map_err(|error| Failure::Rule(part.name, error.errno()))?;
        }
        let bytes = export(&filter).map_err(|_| Failure::Unknown)?;
        Ok(Filter { program: Program::new(&bytes), parts })
    }

    /// The filter before any rule is added.
    fn empty(&self) -> Result<ScmpFilterContext, Failure<'d, 'a>> {
        let mut filter = ScmpFilterContext::new(self.default).map_err(unknown)?;
        let (native, document) = (self.architectures[0], self.document);
        if native != ScmpArch::native() {
            // A node of another kind starts with its own.
            filter.remove_arch(ScmpArch::native()).map_err(unknown)?;
            filter.add_arch(native).map_err(unknown)?;
        }
        for word in &document.architectures {
            let added = ScmpArch::from_str(&word.text).map_err(unknown)?;
            if let Err(error) = filter.add_arch(added) {
                // EDOM: its byte order is another. Else this libseccomp is too old for it (EINVAL).
                let is_order = error.errno() == Some(SeccompErrno::EDOM);
                return Err(if is_order { Failure::Architecture(word) } else { Failure::Unknown });
            }
        }
        if document.rules.iter().map(|rule| rule.names.len()).sum::<usize>() > MANY_NAMES {
            // runc goes on without it, too.
            filter.set_ctl_optimize(2).map(drop).unwrap_or_default();
        }
        Ok(filter)
    }
}

/// The node's own architecture, which is always in the filter, and those of the document.
fn architectures(document: &LinuxSeccomp<'_>, native: ScmpArch) -> Vec<ScmpArch> {
    let mut architectures = vec![native];
    for word in &document.architectures {
        if let Ok(architecture) = ScmpArch::from_str(&word.text)
            && !architectures.contains(&architecture)
        {
            architectures.push(architecture);
        }
    }
    architectures
}

/// What libseccomp is given: no rule that does what the default action does, no system call that it does not
/// know, no repetition, and nothing that comes after a rule without conditions for the same system call,
/// which it ignores.
fn parts<'d, 'a>(
    document: &'d LinuxSeccomp<'a>,
    architectures: usize,
) -> Result<Vec<Part<'d, 'a>>, Failure<'d, 'a>> {
    let default = default_action(document);
    let (mut parts, mut weight_of_all, mut seen) = (Vec::new(), 0, 0);
    let mut keys = BTreeSet::new();
    let mut calls: BTreeMap<&str, Option<ScmpSyscall>> = BTreeMap::new();
    let mut is_settled = BTreeSet::new();
    for rule in &document.rules {
        let action = rule_action(rule).ok_or(Failure::Unknown)?;
        if Some(action) == default {
            continue;
        }
        let alternatives = alternatives(rule);
        for name in &rule.names {
            let call = calls.entry(&name.text).or_insert_with(|| ScmpSyscall::from_name(&name.text).ok());
            let Some(call) = *call else { continue };
            for conditions in &alternatives {
                seen += 1;
                let number = i32::from(call);
                let is_new = !is_settled.contains(&number)
                    && keys.insert((
                        number,
                        code(action),
                        conditions.iter().map(|one| key(one)).collect::<Vec<_>>(),
                    ));
                if is_new {
                    weight_of_all += weight(conditions) * architectures;
                    parts.push(Part { name, call, action, conditions: conditions.clone() });
                }
                if conditions.is_empty() {
                    is_settled.insert(number);
                }
                if weight_of_all > HEAVIEST || seen > MOST_SEEN {
                    return Err(Failure::TooMany);
                }
            }
        }
    }
    Ok(parts)
}

/// What a rule costs libseccomp, in instructions of one architecture, roughly: the halves of an argument are
/// compared by themselves, twice where it is about size, and have to be loaded anew where there are several
/// conditions.
fn weight(conditions: &[&Condition<'_>]) -> usize {
    let halves = conditions.iter().map(|condition| {
        let (_, operator, ..) = key(condition);
        if matches!(operator, "SCMP_CMP_EQ" | "SCMP_CMP_NE" | "SCMP_CMP_MASKED_EQ") { 2 } else { 4 }
    });
    match conditions.len() {
        0 => 1,
        1 => halves.sum(),
        _ => 2 * halves.sum::<usize>(),
    }
}

/// The conditions of a rule, of which all have to hold; or, when two are on one argument, each by itself.
fn alternatives<'d, 'a>(rule: &'d Rule<'a>) -> Vec<Vec<&'d Condition<'a>>> {
    let arguments: BTreeSet<u64> = rule.conditions.iter().map(|condition| condition.index).collect();
    if arguments.len() < rule.conditions.len() {
        return rule.conditions.iter().map(|condition| vec![condition]).collect();
    }
    vec![rule.conditions.iter().collect()]
}

/// By this, conditions are the same or not.
fn key<'d>(condition: &'d Condition<'_>) -> (u64, &'d str, u64, u64) {
    let operator = condition.operator.as_ref().map_or("", |operator| operator.text.as_str());
    (condition.index, operator, condition.value, condition.value_two)
}

fn comparison(condition: &Condition<'_>) -> Option<ScmpArgCompare> {
    let Condition { value, value_two, .. } = *condition;
    let (operator, datum) = match condition.operator.as_ref()?.text.as_str() {
        "SCMP_CMP_NE" => (ScmpCompareOp::NotEqual, value),
        "SCMP_CMP_LT" => (ScmpCompareOp::Less, value),
        "SCMP_CMP_LE" => (ScmpCompareOp::LessOrEqual, value),
        "SCMP_CMP_EQ" => (ScmpCompareOp::Equal, value),
        "SCMP_CMP_GE" => (ScmpCompareOp::GreaterEqual, value),
        "SCMP_CMP_GT" => (ScmpCompareOp::Greater, value),
        "SCMP_CMP_MASKED_EQ" => (ScmpCompareOp::MaskedEqual(value), value_two),
        _ => return None,
    };
    Some(ScmpArgCompare::new(u32::try_from(condition.index).ok()?, operator, datum))
}

/// What the document does where no rule holds.
pub(crate) fn default_action(document: &LinuxSeccomp<'_>) -> Option<ScmpAction> {
    action(&document.default_action.as_ref()?.text, document.default_errno)
}

/// What the rule does where it holds.
pub(crate) fn rule_action(rule: &Rule<'_>) -> Option<ScmpAction> {
    action(&rule.action.as_ref()?.text, rule.errno.as_ref().map(|(errno, _)| *errno))
}

fn action(word: &str, errno: Option<u64>) -> Option<ScmpAction> {
    // An error number has 16 bits in a filter; further ones are lost.
    let errno = u16::try_from(errno.unwrap_or(EPERM) & 0xffff).unwrap_or_default();
    Some(match word {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ScmpAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => ScmpAction::KillProcess,
        "SCMP_ACT_TRAP" => ScmpAction::Trap,
        "SCMP_ACT_ERRNO" => ScmpAction::Errno(errno.into()),
        "SCMP_ACT_TRACE" => ScmpAction::Trace(errno),
        "SCMP_ACT_ALLOW" => ScmpAction::Allow,
        "SCMP_ACT_LOG" => ScmpAction::Log,
        "SCMP_ACT_NOTIFY" => ScmpAction::Notify,
        _ => return None,
    })
}

/// What a filter returns for the action (include/uapi/linux/seccomp.h, `SECCOMP_RET_*`).
pub(crate) fn code(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::Trap => 0x0003_0000,
        ScmpAction::Errno(errno) => 0x0005_0000 | u32::from(u16::try_from(errno).unwrap_or_default()),
        ScmpAction::Notify => 0x7fc0_0000,
        ScmpAction::Trace(number) => 0x7ff0_0000 | u32::from(number),
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::Allow => 0x7fff_0000,
        // KillThread; the enumeration is open.
        _ => 0,
    }
}

fn unknown<'d, 'a>(_: SeccompError) -> Failure<'d, 'a> {
    Failure::Unknown
}

#[cfg(test)]
mod tests;
