//! Which profiles processes run under, or are about to.
//!
//! Invariant: a profile is only said to be free if every thread of the node was seen. What can't be seen is a
//! reason to keep it, and is said.
//!
//! Each thread is asked: one alone can be in a hat (`aa_change_hat(2)`), and its process does not tell. That
//! costs two small reads for each thread of the node, some 100 ms for 10,000 of them, at a removal and at no
//! other time. What begins to run under a profile while this looks can be missed. So can what a thread is to
//! run under after its next execve(2): Linux 6.12 was seen to tell it in `attr/exec`, 6.1 tells each reader
//! its own there. So a removal is only tried of what nobody refers to any more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use profiles::apparmor::label::Label;

use crate::host::proc::{numbers, present, shows_the_node};

const HIDDEN: &str = "the node's processes can't be seen: the node's /proc must be mounted (see --proc)";

/// The processes of the node.
#[derive(Clone, Debug)]
pub(crate) struct Processes {
    proc: PathBuf,
}

impl Processes {
    /// Those that `proc` shows: the node's procfs.
    pub(crate) fn new(proc: PathBuf) -> Self {
        Self { proc }
    }

    /// Which of these profiles, or of their children, are in use, and why that is said.
    pub(crate) fn under<'a>(&self, profiles: &[&'a str]) -> BTreeMap<&'a str, String> {
        let all = |why: &str| profiles.iter().map(|profile| (*profile, why.to_owned())).collect();
        if profiles.is_empty() {
            return BTreeMap::new();
        }
        if !shows_the_node(&self.proc) {
            return all(HIDDEN);
        }
        let labels = match self.labels() {
            Ok(labels) => labels,
            Err(error) => return all(&format!("processes can't be looked at: {error}")),
        };
        let used = |profile: &&'a str| {
            let (_, process) = labels.iter().find(|(label, _)| Label::of(label).has(profile))?;
            Some((*profile, format!("process {process} runs under it, or is about to")))
        };
        profiles.iter().filter_map(used).collect()
    }

    /// What threads run under, and are to run under after their next execve(2), and the process of one of
    /// them.
    fn labels(&self) -> io::Result<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        for process in numbers(&self.proc)? {
            let tasks = self.proc.join(&process).join("task");
            for thread in present(numbers(&tasks))?.unwrap_or_default() {
                for label in of_thread(&tasks.join(thread).join("attr"))? {
                    labels.entry(label).or_insert_with(|| process.clone());
                }
            }
        }
        Ok(labels)
    }
}

/// The label of a thread, and the one for its next execve(2).
fn of_thread(attributes: &Path) -> io::Result<Vec<String>> {
    let read = |name| present(fs::read(attributes.join(name)));
    let mut labels = Vec::new();
    for name in ["current", "exec"] {
        let own = read(format!("apparmor/{name}"))?;
        // Kernels before 5.8 have no directory of AppArmor's own.
        let label = if own.is_none() { read(name.to_owned())? } else { own };
        labels.extend(label.map(|label| String::from_utf8_lossy(&label).into_owned()));
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::proc::examples;

    /// A procfs with these labels: a path below it, and what is there.
    fn proc(files: &[(&str, &str)]) -> (tempfile::TempDir, Processes) {
        let temporary = examples::proc(files);
        let processes = Processes::new(temporary.path().to_owned());
        (temporary, processes)
    }

    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let (_temporary, processes) = proc(files);
        let used = processes.under(&["a", "b"]);
        assert_eq!(used.keys().copied().collect::<Vec<_>>(), expected, "{files:?}: {used:?}");
    }

    #[test]
    fn each_thread_is_asked_for_what_it_runs_under_and_what_it_will() {
        check(&[], &[]);
        check(&[("1/task/1/attr/apparmor/current", "a (enforce)\n")], &["a"]);
        check(&[("1/task/1/attr/current", "a (enforce)\n")], &["a"]);
        check(&[("1/task/1/attr/apparmor/current", "b//&a (mixed)\n")], &["a", "b"]);
        check(&[("1/task/1/attr/apparmor/exec", "b (enforce)\n")], &["b"]);
        check(&[("1/task/1/attr/exec", "b (enforce)\n")], &["b"]);
        check(
            &[
                ("7/task/7/attr/apparmor/current", "unconfined\n"),
                ("7/task/9/attr/apparmor/current", "a//hat (enforce)\n"),
            ],
            &["a"],
        );
        // The label of another security module.
        check(
            &[("1/task/1/attr/current", "a (enforce)\n"), ("1/task/1/attr/apparmor/current", "unconfined\n")],
            &[],
        );
        check(&[("self/task/1/attr/current", "a (enforce)\n")], &[]);
    }

    #[test]
    fn a_thread_that_ended_meanwhile_is_none() {
        check(&[("1/comm", "x\n"), ("3/task/3/comm", "x\n")], &[]);
    }

    #[test]
    fn what_can_not_be_seen_is_in_use() {
        let (temporary, processes) = proc(&[("1/task/1/attr/current/x", "")]);
        let why = processes.under(&["a"]).remove("a").unwrap();
        assert!(why.starts_with("processes can't be looked at: "), "{why}");
        // The second process of a container is none of the kernel's.
        let stat = examples::KTHREADD_STAT.replace("2129984", "4194304");
        for stat in [Some(stat.as_str()), Some("nonsense"), None] {
            match stat {
                Some(stat) => fs::write(temporary.path().join("2/stat"), stat).unwrap(),
                None => fs::remove_file(temporary.path().join("2/stat")).unwrap(),
            }
            assert_eq!(processes.under(&["a"]).remove("a").unwrap(), HIDDEN);
        }
        assert_eq!(processes.under(&[]), BTreeMap::new());
    }
}
