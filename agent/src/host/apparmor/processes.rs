//! Which profiles processes run under, or are about to.
//!
//! Invariant: a profile is only said to be free if every thread of the node was seen. What can't be seen is a
//! reason to keep it, and is said.
//!
//! Each thread is asked: one alone can be in a hat (`aa_change_hat(2)`), and its process does not tell. That
//! costs two small reads for each thread of the node, some 100 ms for 10,000 of them, at a removal and at no
//! other time. What begins to run under a profile while this looks can be missed. So can what a thread is to run
//! under after its next execve(2): Linux 6.12 was seen to tell it in `attr/exec`, 6.1 tells each reader its own
//! there. So a removal is only tried of what nobody refers to any more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use procfs::FromRead;
use procfs::process::{Stat, StatFlags};

use super::kernel::CHILD;

/// The thread that starts all threads of the kernel: only the process namespace of the node has it.
const KTHREADD: &str = "2";
const HIDDEN: &str = "the node's processes can't be seen: the node's /proc must be mounted (see --proc)";
/// What is between two profiles that a process runs under at once.
const STACKED: &str = "//&";

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
        if !self.shows_the_node() {
            return all(HIDDEN);
        }
        let labels = match self.labels() {
            Ok(labels) => labels,
            Err(error) => return all(&format!("processes can't be looked at: {error}")),
        };
        let used = |profile: &&'a str| {
            let (_, process) = labels.iter().find(|(label, _)| has(label, profile))?;
            Some((*profile, format!("process {process} runs under it, or is about to")))
        };
        profiles.iter().filter_map(used).collect()
    }

    /// Whether all processes of the node are here: those of a container, or with `hidepid`, are not all.
    fn shows_the_node(&self) -> bool {
        let stat = Stat::from_file(self.proc.join(KTHREADD).join("stat"));
        stat.is_ok_and(|stat| stat.flags & StatFlags::PF_KTHREAD.bits() != 0)
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

/// Nothing where there is nothing: a thread that ended, or has no label for execve(2) (EINVAL).
fn present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The numbers of processes or threads in `directory`.
fn numbers(directory: &Path) -> io::Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.push(name);
        }
    }
    Ok(numbers)
}

/// Whether a label has `profile` or a child of it: `name (mode)`, `a//child`, `a//&b (mixed)`. What is in
/// another namespace (`:namespace:name`) is another profile.
fn has(label: &str, profile: &str) -> bool {
    let label = label.trim_end_matches(['\n', '\0']);
    let label = label.strip_suffix(')').and_then(|label| label.rsplit_once(" (")).map_or(label, |it| it.0);
    label
        .split(STACKED)
        .any(|part| part.strip_prefix(profile).is_some_and(|rest| rest.is_empty() || rest.starts_with(CHILD)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_its_profiles_and_their_parents() {
        for (label, expected) in [
            ("a (enforce)\n", true),
            ("a", true),
            ("a (complain)", true),
            ("a//hat (enforce)\n", true),
            ("a//b//c (enforce)\n", true),
            ("b//&a (mixed)\n", true),
            ("a//&b (enforce)\n", true),
            ("b//&a//hat (enforce)\n", true),
            ("a//&:ns:b (enforce)\n", true),
            ("unconfined\n", false),
            ("ab (enforce)\n", false),
            ("b//a (enforce)\n", false),
            (":ns:a (enforce)\n", false),
            (":ns://a (enforce)\n", false),
            ("a (x) (enforce)\n", false),
            ("", false),
        ] {
            assert_eq!(has(label, "a"), expected, "{label:?}");
        }
    }

    /// A procfs with these labels: a path below it, and what is there.
    fn proc(files: &[(&str, &str)]) -> (tempfile::TempDir, Processes) {
        let temporary = tempfile::tempdir().unwrap();
        let kthreadd = ("2/stat", super::super::tests::KTHREADD_STAT);
        for (path, content) in files.iter().copied().chain([kthreadd]) {
            let path = temporary.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
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
        let stat = super::super::tests::KTHREADD_STAT.replace("2129984", "4194304");
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
