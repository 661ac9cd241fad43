//! Says with which rules libseccomp would not come to an end, or only after long.
//!
//! From `src/db.c` of libseccomp 2.5.4. It joins the rules for one system call into a tree: a node for each
//! half of each condition, in the order of the arguments, and nodes that stand beside each other are in a
//! list.
//!
//! - A rule that compares an argument by size or with `SCMP_CMP_NE`, and a later argument as well, comes to
//!   that later one in two ways. When two such rules meet, `_db_tree_add` puts a node into the tree twice. If
//!   that is into one list, the list becomes a ring, and libseccomp goes round in it for ever: two rules of
//!   two conditions are enough. Else lists flow together, and there are as many ways to the end as rules, to
//!   the power of the conditions. Of other rules, each node has one way to it, and one such rule beside them
//!   keeps its lists to itself.
//! - Before it adds a rule, `_db_tree_prune` looks for nodes that it makes needless. For each node at the top
//!   of the tree that comes after one of the rule's, it looks through all of the top again with the rule's
//!   next node: the product of these numbers is what it costs, so thousands of millions of steps with ten
//!   rules and another with five conditions.
//! - Where the calls for sockets and System V IPC are also one call for all of them (x86, s390x), rules for
//!   one are joined with rules for the others, with a further condition on the first argument, and the copy
//!   that it keeps of all is no longer in step after a rule for one of them (`db_col_transaction_commit`),
//!   and with each further rule, of whatever system call, rules are copied again.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use libseccomp::{ScmpArch, ScmpSyscall};

use crate::seccomp::compile::{BATCH, Part};
use crate::seccomp::document::Condition;

/// How many steps libseccomp may take over the tops of its trees, for all architectures together. It takes
/// each of them twice (it keeps a copy of what it was given), in some 10 nanoseconds.
const MOST_STEPS: usize = 2_000_000;
/// Stands for the system calls that share one: no number of a call.
const SHARED: i32 = i32::MIN;
/// How many calls share one at most.
const MOST_SHARED: usize = 24;
/// As many rules are in a filter at most, unless all are for one system call (`Rules::by_call`).
const MOST_TOGETHER: usize = BATCH / 2;

/// The rules for one system call, as far as they were added.
#[derive(Default)]
struct Tree<'d> {
    /// Whether a rule has two ways to a node.
    is_branched: bool,
    rules: usize,
    /// What they take, once, and with all copies.
    steps: usize,
    with_copies: usize,
    /// What stands at the top, where arguments have 64 bits: a node for each upper half.
    wide: BTreeSet<Top<'d>>,
    /// And where they have 32.
    narrow: BTreeSet<Top<'d>>,
}

/// An argument, how it is compared, and half of the values that it is compared with.
type Top<'d> = (u64, &'d str, u64, u64);

/// How many steps libseccomp takes at most with these rules.
///
/// # Errors
/// The first rule that libseccomp is not given beside those before it.
pub(crate) fn steps<'p, 'd, 'a>(
    parts: &'p [Part<'d, 'a>],
    architectures: usize,
) -> Result<usize, &'p Part<'d, 'a>> {
    let mut trees: BTreeMap<i32, Tree<'_>> = BTreeMap::new();
    let with_conditions = || parts.iter().filter(|part| !part.conditions.is_empty());
    let (mut steps, mut with_copies) = (0_usize, 0_usize);
    let is_copied = with_conditions().any(is_shared);
    // Else all rules in its tree begin with which call it is, and no two calls meet.
    let is_joined = with_conditions().any(is_for_all);
    for part in with_conditions() {
        let is_shared = is_joined && is_shared(part);
        let tree = trees.entry(if is_shared { SHARED } else { part.call.into() }).or_default();
        let has_both_branched = tree.is_branched && is_branched(&part.conditions);
        let own = tree.add(&part.conditions, is_shared).saturating_mul(architectures);
        tree.rules += 1;
        tree.steps = tree.steps.saturating_add(own);
        steps = steps.saturating_add(own);
        let copies = if is_copied { tree.rules.max(MOST_TOGETHER) } else { 1 };
        let before = mem::replace(&mut tree.with_copies, tree.steps.saturating_mul(copies));
        with_copies = with_copies.saturating_add(tree.with_copies - before);
        if has_both_branched || with_copies > MOST_STEPS {
            return Err(part);
        }
    }
    Ok(steps)
}

/// Whether libseccomp takes not much longer with all rules at once, also those without conditions.
pub(crate) fn is_quick(steps: usize, parts: &[Part<'_, '_>]) -> bool {
    let copies = if parts.iter().any(is_shared) { parts.len() } else { 1 };
    steps.saturating_mul(copies) <= 4 * MOST_STEPS
}

/// Whether the system call is one of those that are also one call for all of them, or that one. libseccomp
/// gives these numbers of their own (`src/syscalls.c` and `include/seccomp-syscalls.h`).
fn is_shared(part: &Part<'_, '_>) -> bool {
    let number = ScmpSyscall::from_name_by_arch(&part.name.text, ScmpArch::X86).map_or(0, i32::from);
    matches!(number, -120..=-101 | -224..=-201) || is_for_all(part)
}

/// Whether the system call is one for many.
pub(crate) fn is_for_all(part: &Part<'_, '_>) -> bool {
    matches!(part.name.text.as_str(), "socketcall" | "ipc")
}

impl<'d> Tree<'d> {
    /// Adds a rule, and says how many steps that takes at most.
    fn add(&mut self, conditions: &[&'d Condition<'_>], is_shared: bool) -> usize {
        let nodes = |condition: &Condition<'_>| if is_about_size(condition) { 3 } else { 2 };
        // The first argument of the call for all of them says which one it is.
        let (of_wide, of_narrow) = if is_shared {
            ((1 + self.wide.len()).saturating_pow(2), MOST_SHARED + self.narrow.len())
        } else {
            (1, 1)
        };
        let wide = product(&self.wide, conditions, nodes).saturating_mul(of_wide);
        let steps = product(&self.narrow, conditions, |_| 1).saturating_mul(of_narrow).saturating_add(wide);
        self.is_branched |= is_branched(conditions);
        let low = |value: u64| value & u64::from(u32::MAX);
        self.wide.extend(top(conditions, |value| value, |value| value >> 32));
        self.narrow.extend(top(conditions, low, low));
        steps
    }
}

/// What stands at the top and does not come before the rule's node, multiplied for all of its nodes.
fn product(
    tops: &BTreeSet<Top<'_>>,
    conditions: &[&Condition<'_>],
    nodes: fn(&Condition<'_>) -> u32,
) -> usize {
    conditions.iter().fold(1, |steps: usize, condition| {
        let after = tops.range((condition.index, "", 0, 0)..).count().max(1);
        let ways = if is_one_way(condition) { 1 } else { 2 };
        steps.saturating_mul(after.saturating_pow(nodes(condition))).saturating_mul(ways)
    })
}

/// The rule's first node. Where the `seen` bits of a mask are 0, libseccomp makes none of the condition.
fn top<'d>(conditions: &[&'d Condition<'_>], seen: fn(u64) -> u64, half: fn(u64) -> u64) -> Option<Top<'d>> {
    let is_there = |one: &&Condition<'_>| operator(one) != "SCMP_CMP_MASKED_EQ" || seen(one.value) != 0;
    let first = in_order(conditions).into_iter().find(is_there)?;
    Some((first.index, operator(first), half(first.value), half(first.value_two)))
}

/// Whether there are two ways to a node of the rule: to a condition that comes after one with two ways out.
fn is_branched(conditions: &[&Condition<'_>]) -> bool {
    in_order(conditions).split_last().is_some_and(|(_, before)| before.iter().any(|one| !is_one_way(one)))
}

/// Conditions in the order that libseccomp has them in.
fn in_order<'d, 'a>(conditions: &[&'d Condition<'a>]) -> Vec<&'d Condition<'a>> {
    let mut conditions = conditions.to_vec();
    conditions.sort_by_key(|condition| condition.index);
    conditions
}

/// Whether the condition holds only if both halves are equal to something.
fn is_one_way(condition: &Condition<'_>) -> bool {
    matches!(operator(condition), "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ")
}

fn is_about_size(condition: &Condition<'_>) -> bool {
    !is_one_way(condition) && operator(condition) != "SCMP_CMP_NE"
}

fn operator<'d>(condition: &'d Condition<'_>) -> &'d str {
    condition.operator.as_ref().map_or("", |operator| operator.text.as_str())
}
