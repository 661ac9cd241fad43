//! Says where a filter does something else than the rules that it is made of.
//!
//! What rules mean: the first without conditions for a system call decides; without one, each rule whose
//! conditions all hold; without any, the default action. libseccomp joins the conditions of all rules for a
//! system call into a tree, and some do not come out as they went in (tried with 2.5.4): a rule that holds is
//! not found behind another whose first condition holds and whose second does not, and of two comparisons by
//! size the halves are mixed.

use std::collections::{BTreeMap, BTreeSet};

use libseccomp::{ScmpAction, ScmpArch, ScmpSyscall};

use crate::platform::Architecture;
use crate::seccomp::compile::{Filter, Part, code};
use crate::seccomp::document::{Condition, Word};
use crate::seccomp::program::Call;

/// How many instructions are carried out for one document at most, which takes a few milliseconds.
pub(crate) const MOST_STEPS: usize = 500_000;
/// How many values of an argument are tried, by the number of arguments with conditions.
const MOST_VALUES: [usize; 7] = [0, 512, 64, 16, 8, 5, 4];

/// A system call for which the filter and its rules are not one.
#[derive(Debug)]
pub(crate) struct Difference<'d, 'a> {
    /// The first rule's name for it.
    pub(crate) name: &'d Word<'a>,
    /// Arguments with which it shows: their indexes and values.
    pub(crate) arguments: Vec<(usize, u64)>,
    /// What the rules that hold do, or the default action.
    pub(crate) meant: BTreeSet<u32>,
    /// What the filter does.
    pub(crate) done: u32,
}

/// The differences that show with values around those of the conditions: at most one for each system call. It
/// carries out no more than `steps` instructions, and leaves what is left of them.
pub(crate) fn differences<'d, 'a>(
    filter: &Filter<'d, 'a>,
    default: ScmpAction,
    architecture: Architecture,
    steps: &mut usize,
) -> Vec<Difference<'d, 'a>> {
    let Some((audit, scmp, is_big_endian)) = kernel_names(architecture) else { return Vec::new() };
    let mut by_call: BTreeMap<i32, Vec<&Part<'d, 'a>>> = BTreeMap::new();
    for part in &filter.parts {
        by_call.entry(part.call.into()).or_default().push(part);
    }
    let mut differences = Vec::new();
    for parts in by_call.values() {
        let Some(first) = parts.iter().find(|part| !part.conditions.is_empty()) else { continue };
        let number = ScmpSyscall::from_name_by_arch(&first.name.text, scmp).map_or(-1, i32::from);
        let Ok(number) = u32::try_from(number) else { continue };
        for arguments in points(parts) {
            let call = Call { number, architecture: audit, arguments, is_big_endian };
            let Some((done, taken)) = filter.program.run(&call) else { return differences };
            let Some(left) = steps.checked_sub(taken) else { return differences };
            *steps = left;
            let meant = meaning(parts, default, &arguments);
            if !meant.contains(&done) || meant.len() > 1 {
                let used = arguments_of(parts).into_iter().map(|index| (index, arguments[index])).collect();
                differences.push(Difference { name: first.name, arguments: used, meant, done });
                break;
            }
        }
    }
    differences
}

/// What may come of the system call: more than one action, if rules that hold are not of one mind.
fn meaning(parts: &[&Part<'_, '_>], default: ScmpAction, arguments: &[u64; 6]) -> BTreeSet<u32> {
    if let Some(always) = parts.iter().find(|part| part.conditions.iter().all(|one| is_idle(one))) {
        return BTreeSet::from([code(always.action)]);
    }
    let does_hold =
        |part: &&&Part<'_, '_>| part.conditions.iter().all(|condition| holds(condition, arguments));
    let found: BTreeSet<u32> = parts.iter().filter(does_hold).map(|part| code(part.action)).collect();
    if found.is_empty() { BTreeSet::from([code(default)]) } else { found }
}

/// A mask of 0 leaves nothing to compare, so libseccomp has the condition hold always.
fn is_idle(condition: &Condition<'_>) -> bool {
    condition.value == 0 && operator(condition) == "SCMP_CMP_MASKED_EQ"
}

fn holds(condition: &Condition<'_>, arguments: &[u64; 6]) -> bool {
    let Condition { value, value_two, .. } = *condition;
    let Some(argument) = position(condition).map(|index| arguments[index]) else { return false };
    match operator(condition) {
        "SCMP_CMP_NE" => argument != value,
        "SCMP_CMP_LT" => argument < value,
        "SCMP_CMP_LE" => argument <= value,
        "SCMP_CMP_EQ" => argument == value,
        "SCMP_CMP_GE" => argument >= value,
        "SCMP_CMP_GT" => argument > value,
        // libseccomp ignores bits of the second value that the mask lacks.
        _ => argument & value == value_two & value,
    }
}

fn operator<'d>(condition: &'d Condition<'_>) -> &'d str {
    condition.operator.as_ref().map_or("", |operator| operator.text.as_str())
}

fn position(condition: &Condition<'_>) -> Option<usize> {
    usize::try_from(condition.index).ok().filter(|index| *index < 6)
}

fn arguments_of(parts: &[&Part<'_, '_>]) -> BTreeSet<usize> {
    parts.iter().flat_map(|part| &part.conditions).filter_map(|condition| position(condition)).collect()
}

/// Arguments on both sides of every condition, each value of one argument with each of the others.
fn points(parts: &[&Part<'_, '_>]) -> Vec<[u64; 6]> {
    let mut values: BTreeMap<usize, BTreeSet<u64>> = BTreeMap::new();
    for condition in parts.iter().flat_map(|part| &part.conditions) {
        let Some(index) = position(condition) else { continue };
        let of_argument = values.entry(index).or_insert_with(|| BTreeSet::from([0, u64::MAX]));
        of_argument.extend(around(condition));
    }
    let most = MOST_VALUES[values.len().min(6)];
    let mut points = vec![[0; 6]];
    for (index, of_argument) in values {
        let of_argument = with_mixed_halves(&of_argument, most);
        let with = |point: [u64; 6]| {
            of_argument.iter().map(move |value| {
                let mut point = point;
                point[index] = *value;
                point
            })
        };
        points = points.into_iter().flat_map(with).collect();
    }
    points
}

/// `values` and, up to `most` in all, what the halves of some make with those of others: filters compare by
/// halves.
fn with_mixed_halves(values: &BTreeSet<u64>, most: usize) -> BTreeSet<u64> {
    const LOW: u64 = u32::MAX as u64;
    let halves = |half: fn(u64) -> u64| values.iter().copied().map(half).collect::<BTreeSet<u64>>();
    let (lows, highs) = (halves(|value| value & LOW), halves(|value| value & !LOW));
    let mixed = highs.iter().flat_map(|high| lows.iter().map(move |low| high | low));
    let mut all: BTreeSet<u64> = values.iter().copied().take(most).collect();
    for value in mixed {
        if all.len() >= most {
            break;
        }
        all.insert(value);
    }
    all
}

fn around(condition: &Condition<'_>) -> [u64; 5] {
    const HIGH: u64 = 1 << 32;
    let Condition { value, value_two, .. } = *condition;
    if operator(condition) == "SCMP_CMP_MASKED_EQ" {
        let equal = value & value_two;
        return [equal, equal | !value, equal ^ value, !equal, value];
    }
    [value, value.wrapping_sub(1), value.wrapping_add(1), value.wrapping_sub(HIGH), value.wrapping_add(HIGH)]
}

/// What the kernel (`AUDIT_ARCH_*`, include/uapi/linux/audit.h) and libseccomp call the architecture, and
/// whether it is big-endian. None for those with 32 bits, on which only half of a value is compared.
fn kernel_names(architecture: Architecture) -> Option<(u32, ScmpArch, bool)> {
    match architecture {
        Architecture::Amd64 => Some((0xc000_003e, ScmpArch::X8664, false)),
        Architecture::Arm64 => Some((0xc000_00b7, ScmpArch::Aarch64, false)),
        Architecture::Ppc64le => Some((0xc000_0015, ScmpArch::Ppc64Le, false)),
        Architecture::Riscv64 => Some((0xc000_00f3, ScmpArch::Riscv64, false)),
        Architecture::S390x => Some((0x8000_0016, ScmpArch::S390X, true)),
        Architecture::Loong64 => Some((0xc000_0102, ScmpArch::Loongarch64, false)),
        Architecture::Arm | Architecture::I386 => None,
    }
}
