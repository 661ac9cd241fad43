//! What documents mean is what the kernel does, and no more.
//!
//! The meaning is told here once more, naively and from the document alone, so that neither resolving, nor
//! the way into libseccomp, nor libseccomp itself is taken at its word.

use std::cell::Cell;

use libseccomp::error::SeccompErrno;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::kernel::{Outcome, Probe, ask};
use super::resolved;
use crate::platform::{Architecture, Platform};
use crate::seccomp::compile::{Failure, Rules, default_action};
use crate::seccomp::document::{Condition, LinuxSeccomp, Rule};
use crate::seccomp::meaning::{MOST_STEPS, differences};
use crate::seccomp::oci;
use crate::seccomp::program::Call;
use crate::seccomp::vocabulary::OPERATORS;
use crate::seed::runner;

/// System calls that take no arguments, change nothing, and never return 0.
const CALLS: &[(&str, i64)] =
    &[("getpid", libc::SYS_getpid), ("getppid", libc::SYS_getppid), ("gettid", libc::SYS_gettid)];
/// A system call of x86-64 with this bit is one of x32.
const X32: i64 = 0x4000_0000;
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const ERRNO: &str = "SCMP_ACT_ERRNO";
/// Refusals are twice in it: most rules have one.
const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    ERRNO,
    ERRNO,
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
];
/// Conditions of a rule as Docker and Podman have them, and whether the rule is there on
/// [`Platform::EXAMPLE`], for a container with the default capabilities. Most rules have none.
const FILTERS: &[(&str, bool)] = &[
    ("", true),
    ("", true),
    ("", true),
    ("", true),
    ("", true),
    ("", true),
    (r#""includes":{},"excludes":{},"#, true),
    (r#""includes":{"caps":["CAP_CHOWN"]},"#, true),
    (r#""includes":{"caps":["CAP_CHOWN","CAP_SYS_ADMIN"]},"#, false),
    (r#""excludes":{"caps":["CAP_SYS_ADMIN"]},"#, true),
    (r#""excludes":{"caps":["CAP_SYS_ADMIN","CAP_KILL"]},"#, false),
    (r#""includes":{"arches":["arm64","amd64"]},"#, true),
    (r#""includes":{"arches":["x32"]},"#, false),
    (r#""excludes":{"arches":["amd64"]},"#, false),
    (r#""includes":{"minKernel":"4.8"},"#, true),
    (r#""includes":{"minKernel":"99.0"},"#, false),
    (r#""excludes":{"minKernel":"4.8"},"#, false),
    (r#""includes":{"arches":["amd64"],"caps":["CAP_KILL"]},"excludes":{"minKernel":"99.0"},"#, true),
    (r#""includes":{"arches":["amd64"],"caps":["CAP_BPF"]},"excludes":{"minKernel":"99.0"},"#, false),
];
const HIGH: u64 = 1 << 32;
/// Values of an argument to try.
const VALUES: &[u64] = &[0, 1, 2, 3, 4, HIGH - 1, HIGH, HIGH + 1, HIGH + 2, 2 * HIGH, 2 * HIGH + 1, u64::MAX];

fn value() -> impl Strategy<Value = u64> {
    let halves = (0..3_u64, 0..4_u64).prop_map(|(high, low)| high * HIGH + low);
    prop_oneof![4 => 0..4_u64, 2 => halves, 1 => Just(HIGH - 1), 1 => Just(u64::MAX)]
}

fn condition() -> impl Strategy<Value = String> {
    let indexes = prop_oneof![4 => Just(0_u8), 3 => Just(1), 1 => Just(5)];
    (indexes, value(), value(), select(OPERATORS)).prop_map(|(index, value, two, operator)| {
        format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"{operator}"}}"#)
    })
}

/// A document, and the same without what only Docker and Podman read.
#[derive(Clone, Debug)]
struct Pair {
    written: String,
    meant: String,
}

/// A rule as it is written, and as it is meant; none if it is not there.
fn rule() -> impl Strategy<Value = (String, Option<String>)> {
    let names: Vec<&str> = CALLS.iter().map(|(name, _)| *name).collect();
    let errnos = option::of(prop_oneof![0..4_u32, Just(4_094), Just(65_537)]);
    (subsequence(names, 1..=2), select(ACTIONS), errnos, vec(condition(), 0..3), select(FILTERS)).prop_map(
        |(names, action, errno, conditions, (filter, is_there))| {
            let number = errno.map(|errno| format!(r#""errnoRet":{errno},"#)).unwrap_or_default();
            let end = format!(r#""action":"{action}","args":[{}]}}"#, conditions.join(","));
            // Each has a second way to say the same.
            let second_names = match names[..] {
                [name] => format!(r#""name":"{name}""#),
                _ => format!(r#""names":{names:?}"#),
            };
            let second_errno = if errno == Some(1) { r#""errno":"EPERM","errnoRet":2,"# } else { &number };
            let meant = format!(r#"{{"names":{names:?},{number}{end}"#);
            let written = if filter.is_empty() {
                meant.clone()
            } else {
                format!(r"{{{second_names},{filter}{second_errno}{end}")
            };
            (written, is_there.then_some(meant))
        },
    )
}

/// Documents under which a process can at least end.
fn document() -> impl Strategy<Value = Pair> {
    let others = subsequence(vec!["SCMP_ARCH_X86", "SCMP_ARCH_X32"], 0..=2);
    (select(ACTIONS), others, any::<bool>(), vec(rule(), 0..6)).prop_map(
        |(default, others, is_mapped, rules)| {
            let to_end = r#"{"names":["exit_group"],"action":"SCMP_ACT_ALLOW"}"#.to_owned();
            let (written, meant): (Vec<_>, Vec<_>) = rules.into_iter().unzip();
            let text = |architectures: String, rules: Vec<String>| {
                let rules = [vec![to_end.clone()], rules].concat().join(",");
                format!(r#"{{"defaultAction":"{default}",{architectures}"syscalls":[{rules}]}}"#)
            };
            let all: Vec<&str> = ["SCMP_ARCH_X86_64"].into_iter().chain(others.iter().copied()).collect();
            let listed = format!(r#""architectures":{all:?},"#);
            let entry = |architecture: &str| {
                format!(r#"{{"architecture":"{architecture}","subArchitectures":{others:?}}}"#)
            };
            let map = [entry("SCMP_ARCH_AARCH64"), entry("SCMP_ARCH_X86_64")].join(",");
            let mapped = format!(r#""archMap":[{map}],"#);
            Pair {
                written: text(if is_mapped { mapped } else { listed.clone() }, written),
                meant: text(listed, meant.into_iter().flatten().collect()),
            }
        },
    )
}

/// What may come of a call: of several rules that hold and have no order, any.
fn meaning(document: &LinuxSeccomp<'_>, name: &str, arguments: &[u64; 6]) -> Vec<Outcome> {
    let default = outcome(&document.default_action.as_ref().unwrap().text, document.default_errno);
    // To another number, TRACE is another action.
    let number = |errno: Option<u64>| errno.unwrap_or(1) & 0xffff;
    let is_default = |rule: &&Rule<'_>| {
        let action = &rule.action.as_ref().unwrap().text;
        let has_number = action == ERRNO || action == "SCMP_ACT_TRACE";
        let of_rule = number(rule.errno.as_ref().map(|(errno, _)| *errno));
        *action == document.default_action.as_ref().unwrap().text
            && (!has_number || of_rule == number(document.default_errno))
    };
    let rules: Vec<&Rule<'_>> = document.rules_for(name).filter(|rule| !is_default(rule)).collect();
    // One without conditions decides, wherever it stands.
    if let Some(always) = rules.iter().find(|rule| is_always(rule)) {
        return vec![done(always)];
    }
    let found: Vec<Outcome> =
        rules.iter().filter(|rule| holds(rule, arguments)).map(|rule| done(rule)).collect();
    if found.is_empty() { vec![default] } else { found }
}

fn done(rule: &Rule<'_>) -> Outcome {
    outcome(&rule.action.as_ref().unwrap().text, rule.errno.as_ref().map(|(errno, _)| *errno))
}

fn is_always(rule: &Rule<'_>) -> bool {
    let is_idle =
        |condition: &Condition<'_>| condition.value == 0 && operator(condition) == "SCMP_CMP_MASKED_EQ";
    if is_any(rule) { rule.conditions.iter().any(is_idle) } else { rule.conditions.iter().all(is_idle) }
}

fn is_any(rule: &Rule<'_>) -> bool {
    matches!(rule.conditions.as_slice(), [one, other] if one.index == other.index)
}

fn holds(rule: &Rule<'_>, arguments: &[u64; 6]) -> bool {
    let mut each = rule.conditions.iter().map(|condition| {
        let argument = arguments[usize::try_from(condition.index).unwrap()];
        let (value, two) = (condition.value, condition.value_two);
        match operator(condition) {
            "SCMP_CMP_NE" => argument != value,
            "SCMP_CMP_LT" => argument < value,
            "SCMP_CMP_LE" => argument <= value,
            "SCMP_CMP_EQ" => argument == value,
            "SCMP_CMP_GE" => argument >= value,
            "SCMP_CMP_GT" => argument > value,
            "SCMP_CMP_MASKED_EQ" => argument & value == two & value,
            other => panic!("{other} is no operator"),
        }
    });
    if is_any(rule) { each.any(|holds| holds) } else { each.all(|holds| holds) }
}

fn operator<'d>(condition: &'d Condition<'_>) -> &'d str {
    &condition.operator.as_ref().unwrap().text
}

fn outcome(action: &str, errno: Option<u64>) -> Outcome {
    match action {
        "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" => Outcome::Done,
        ERRNO => Outcome::Errno(i32::try_from(errno.unwrap_or(1) & 0xffff).unwrap()),
        // Nobody traces the process.
        "SCMP_ACT_TRACE" => Outcome::Errno(libc::ENOSYS),
        "SCMP_ACT_TRAP" => Outcome::Trapped,
        _ => Outcome::Killed,
    }
}

/// What comes of a call for which a filter returns `code`.
fn returned(code: u32) -> Outcome {
    match code & 0xffff_0000 {
        0x7fff_0000 | 0x7ffc_0000 => Outcome::Done,
        0x0005_0000 => Outcome::Errno(i32::try_from(code & 0xffff).unwrap()),
        0x7ff0_0000 => Outcome::Errno(libc::ENOSYS),
        0x0003_0000 => Outcome::Trapped,
        _ => Outcome::Killed,
    }
}

/// Every one of these values for the first argument, with some for the second and the last.
fn probes(number: i64) -> Vec<Probe> {
    let others = [(0, 0), (1, 3), (HIGH, u64::MAX)];
    let probe =
        |first: u64, (second, last): (u64, u64)| Probe { number, arguments: [first, second, 0, 0, 0, last] };
    VALUES.iter().flat_map(|first| others.map(|others| probe(*first, others))).collect()
}

/// Where no difference is found, the kernel does what the document says, and what the program does when it is
/// run here.
#[cfg(target_arch = "x86_64")]
#[test]
fn what_a_document_says_is_what_the_kernel_does() {
    let (same, other) = (Cell::new(0), Cell::new(0));
    let judge = |Pair { written: text, meant }: Pair| {
        let document = resolved(&text, Platform::EXAMPLE);
        // What is on the node is what was compiled.
        let on_disk = oci::write(&document);
        let again = resolved(&on_disk, Platform::EXAMPLE);
        prop_assert_eq!(&oci::write(&again), &on_disk);
        let document = again;
        let meant = resolved(&meant, Platform::EXAMPLE);
        let compiled = Rules::of(&document, Architecture::Amd64)
            .and_then(|rules| Ok((rules.whole()?, rules.by_call()?, rules)));
        let (filter, filters, rules) = match compiled {
            Ok(compiled) => compiled,
            Err(Failure::Rule(_, errno)) => {
                prop_assert_eq!(errno, Some(SeccompErrno::EEXIST), "{}", text);
                return Ok(());
            }
            Err(Failure::Tangled(_)) => return Ok(()),
            Err(failure) => panic!("{failure:?}: {text}"),
        };
        prop_assert!(!rules.is_small(&filters, filter.program.len() + rules.prelude() - 1), "{}", text);
        let default = default_action(&document).unwrap();
        let mut steps = MOST_STEPS;
        let differences: Vec<_> = filters
            .iter()
            .flat_map(|filter| differences(filter, default, Architecture::Amd64, &mut steps))
            .collect();
        let is_told = |name: &str| differences.iter().any(|difference| difference.name.text == name);
        let program = filter.program.bytes();
        for (name, number) in CALLS {
            let probes = probes(*number);
            if is_told(name) {
                other.set(other.get() + 1);
                continue;
            }
            same.set(same.get() + 1);
            for (probe, got) in probes.iter().zip(ask(&program, &probes)) {
                let call = Call {
                    number: u32::try_from(*number).unwrap(),
                    architecture: AUDIT_ARCH_X86_64,
                    arguments: probe.arguments,
                    is_big_endian: false,
                };
                let (code, _) = filter.program.run(&call).unwrap();
                prop_assert_eq!(returned(code), got, "{} {:x?}, run here: {}", name, probe.arguments, text);
                let expected = meaning(&meant, name, &probe.arguments);
                prop_assert!(
                    expected.contains(&got),
                    "{name} {:x?}: {expected:?}, not {got:?}, is meant by {text}",
                    probe.arguments
                );
            }
        }
        let has_x32 = document.architectures.iter().any(|word| word.text == "SCMP_ARCH_X32");
        if !has_x32 {
            let of_x32 = Probe { number: CALLS[0].1 | X32, arguments: [0; 6] };
            prop_assert_eq!(ask(&program, &[of_x32]), [Outcome::Killed], "{}", text);
        }
        Ok(())
    };
    runner(250).run(&document(), judge).unwrap_or_else(|error| panic!("{error}"));
    assert!(same.get() > 4 * other.get(), "{} calls compared, {} not", same.get(), other.get());
}
