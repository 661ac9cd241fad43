//! Batches of which a step fails, or after each step of which the agent crashes.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use nix::mount::{MsFlags, mount};

use super::drift::with_mounts;
use super::*;
use crate::host::fault::Step;
use crate::host::fault::tests::watched;

impl Scene {
    /// Installs the second version of these, while `watcher` is told each step. Returns those that failed,
    /// and why.
    fn install_watched(
        &mut self,
        references: &[&str],
        watcher: impl FnMut(Step, &Path) -> nix::Result<()> + 'static,
    ) -> Vec<String> {
        let install = |text: &&str| Install { reference: text.parse().unwrap(), document: document("2") };
        let batch = references.iter().map(install).collect();
        let outcomes = watched(watcher, || self.host().install(batch));
        let failed = outcomes.into_iter().filter_map(|(reference, outcome)| {
            Some(format!("{reference}: {}", outcome.err()?.in_full().split(" /").next()?))
        });
        let mut failed: Vec<String> = failed.collect();
        failed.sort();
        failed
    }

    /// The version that is at `reference`; none if there is no file.
    fn version(&self, reference: &str) -> Option<&'static str> {
        let content = fs::read(self.path(reference)).ok()?;
        let version = ["1", "2"].into_iter().find(|version| document(version).content() == content);
        Some(version.unwrap_or("neither"))
    }

    fn temporaries(&self) -> Vec<PathBuf> {
        temporaries(self.temporary.path())
    }
}

/// The files below `directory` that have temporary names.
fn temporaries(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { temporaries(&path) } else { vec![path] };
    paths.flat_map(below).filter(|path| path.to_string_lossy().contains("~pavise")).collect()
}

/// A batch: an edit of what is there, and new ones beside it and in another directory.
const BATCH: [&str; 3] = ["web/a", "web/b", "other/c"];

/// Claims which of [`BATCH`] fail, and what is where afterwards, if `step` fails on what is called `name`.
fn check(step: Step, name: &'static str, errno: Errno, failed: &[&str], versions: [Option<&str>; 3]) {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    let fail = move |told: Step, path: &Path| {
        if told == step && path.ends_with(name) { Err(errno) } else { Ok(()) }
    };
    let case = format!("{step:?} of {name}");
    assert_eq!(scene.install_watched(&BATCH, fail), failed, "{case}");
    assert_eq!(BATCH.map(|reference| scene.version(reference)), versions, "{case}");
    let owned = BATCH.map(|reference| scene.owns(reference));
    assert_eq!(owned, versions.map(|version| version.is_some()), "{case}");
    assert_eq!(scene.temporaries(), Vec::<PathBuf>::new(), "{case}");

    assert_eq!(scene.install_watched(&BATCH, |_, _| Ok(())), Vec::<String>::new(), "{case}, tried again");
    assert_eq!(BATCH.map(|reference| scene.version(reference)), [Some("2"); 3], "{case}, tried again");
}

#[test]
fn whatever_step_fails_old_or_new_is_left_and_the_rest_is_served() {
    let (one, two) = (Some("1"), Some("2"));
    check(Step::Write, "web/a", Errno::ENOSPC, &["web/a: writing"], [one, two, two]);
    check(Step::Write, "web/b", Errno::ENOSPC, &["web/b: writing"], [two, None, two]);
    check(Step::Sync, "web/a", Errno::EIO, &["web/a: making durable"], [one, two, two]);
    check(Step::Sync, "other/c", Errno::EIO, &["other/c: making durable"], [two, two, None]);
    check(Step::Rename, "web/a", Errno::EPERM, &["web/a: replacing"], [one, two, two]);
    check(Step::Rename, "web/b", Errno::EPERM, &["web/b: replacing"], [two, None, two]);
    let web = ["web/a: making durable", "web/b: making durable"];
    check(Step::SyncDirectory, "seccomp/web", Errno::EIO, &web, [two, two, two]);
    let all = ["other/c: writing", "web/a: writing", "web/b: writing"];
    check(Step::Write, "ledger.json", Errno::ENOSPC, &all, [one, None, None]);
}

/// So many that the file system is made durable at once.
fn many() -> Vec<String> {
    (0..MANY).map(|number| format!("b{}/k{number}", number % 3)).collect()
}

#[test]
fn many_files_are_made_durable_at_once_or_else_each_by_itself() {
    let references = many();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    for (is_failing, expected) in [(false, &[][..]), (true, &["b1/k1: making durable"])] {
        let mut scene = Scene::new();
        let syncs = Rc::new(RefCell::new(Vec::new()));
        let told = syncs.clone();
        let fail = move |step: Step, path: &Path| {
            if matches!(step, Step::Sync | Step::SyncAll) && !path.ends_with("ledger.json") {
                told.borrow_mut().push(step);
            }
            let is_failing =
                is_failing && (step == Step::SyncAll || step == Step::Sync && path.ends_with("b1/k1"));
            if is_failing { Err(Errno::EIO) } else { Ok(()) }
        };
        assert_eq!(scene.install_watched(&references, fail), expected);
        // On a file system where syncfs is not relied on, such as a tmpfs, each file is synced.
        let at_once: Vec<Step> =
            syncs.borrow().first().copied().filter(|step| *step == Step::SyncAll).into_iter().collect();
        let each = if is_failing || at_once.is_empty() { vec![Step::Sync; MANY] } else { Vec::new() };
        assert_eq!(*syncs.borrow(), [at_once, each].concat());
        let written = references.iter().filter(|reference| scene.version(reference) == Some("2")).count();
        assert_eq!(written, MANY - expected.len());
        assert_eq!(scene.temporaries(), Vec::<PathBuf>::new());
    }
}

#[test]
fn more_files_than_may_be_open_are_written_in_turns() {
    let mut scene = Scene::new();
    let references: Vec<String> =
        (0..=2 * AT_ONCE).map(|number| format!("b{}/k{number}", number % 3)).collect();
    let references: Vec<&str> = references.iter().map(String::as_str).collect();
    let most = Rc::new(Cell::new(0));
    let (told, mut open) = (most.clone(), 0);
    let count = move |step: Step, path: &Path| {
        if !path.ends_with("ledger.json") {
            open += i32::from(step == Step::Write) - i32::from(step == Step::Rename);
        }
        told.set(told.get().max(open));
        Ok(())
    };
    assert_eq!(scene.install_watched(&references, count), Vec::<String>::new());
    assert_eq!(usize::try_from(most.get()), Ok(AT_ONCE));
    assert!(references.iter().all(|reference| scene.version(reference) == Some("2")));
}

#[test]
fn a_content_is_durable_before_it_has_its_name_and_the_intent_before_both() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    let steps = Rc::new(RefCell::new(Vec::new()));
    let told = steps.clone();
    let watcher = move |step, path: &Path| {
        let name: PathBuf = path.iter().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect();
        told.borrow_mut().push(format!("{step:?} {}", name.display()));
        Ok(())
    };
    assert_eq!(scene.install_watched(&["web/a", "web/b"], watcher), Vec::<String>::new());
    let state = scene.temporary.path().file_name().unwrap().display().to_string();
    let expected = [
        "Write state/ledger.json",
        "Sync state/ledger.json",
        "Rename state/ledger.json",
        &format!("SyncDirectory {state}/state"),
        "Write web/a",
        "Write web/b",
        "Sync web/a",
        "Sync web/b",
        "Rename web/a",
        "Rename web/b",
        "SyncDirectory seccomp/web",
    ];
    assert_eq!(*steps.borrow(), expected);
}

#[test]
fn a_removal_that_may_not_be_durable_is_not_forgotten() {
    let mut scene = Scene::new();
    assert_eq!(scene.install_watched(&BATCH, |_, _| Ok(())), Vec::<String>::new());
    let fail = |step, path: &Path| {
        let is_failing = step == Step::SyncDirectory && path.ends_with("seccomp/web");
        if is_failing { Err(Errno::EIO) } else { Ok(()) }
    };
    let batch = BATCH.map(|reference| reference.parse().unwrap());
    let outcomes = watched(fail, || scene.host().remove(batch.into()));
    let failed: Vec<bool> = outcomes.iter().map(|(_, outcome)| outcome.is_err()).collect();
    assert_eq!(failed, [true, true, false]);
    assert_eq!(BATCH.map(|reference| scene.owns(reference)), [true, true, false]);
    for reference in BATCH {
        scene.remove(reference);
    }
    assert!(scene.is_clean());
}

/// Makes what is in the directory `to` a copy of what is in `from`.
fn copy(from: &Path, to: &Path) {
    for directory in ["kubelet", "state"] {
        drop(fs::remove_dir_all(to.join(directory)));
    }
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_crash_before_any_step_leaves_old_or_new_and_is_finished() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    let crashes = Rc::new(RefCell::new(Vec::new()));
    let (told, disk) = (crashes.clone(), scene.temporary.path().to_owned());
    let watcher = move |step, path: &Path| {
        let then = tempfile::tempdir().unwrap();
        copy(&disk, then.path());
        told.borrow_mut().push((format!("{step:?} {}", path.display()), then));
        Ok(())
    };
    assert_eq!(scene.install_watched(&BATCH, watcher), Vec::<String>::new());
    let digests = ["1", "2"].map(|version| Found::Ours(document(version).digest()));
    let crashes = crashes.take();
    assert!(crashes.len() > 14, "{crashes:?}");
    for (before, then) in crashes {
        copy(then.path(), scene.temporary.path());
        let versions = BATCH.map(|reference| scene.version(reference));
        assert_ne!(versions[0], None, "before {before}");
        assert!(!versions.contains(&Some("neither")), "before {before}");
        let found = scene.restart();
        let is_right = |found: &Found| *found == Found::Absent || digests.contains(found);
        assert!(found.values().all(is_right), "before {before}: {found:?}");
        assert_eq!(scene.install_watched(&BATCH, |_, _| Ok(())), Vec::<String>::new(), "before {before}");
        assert_eq!(BATCH.map(|reference| scene.version(reference)), [Some("2"); 3], "before {before}");
        assert_eq!(scene.temporaries(), Vec::<PathBuf>::new(), "before {before}");
    }
}

#[test]
fn a_full_disk_is_said_keeps_the_old_file_and_takes_what_fits() {
    let small_disk = |path: &Path| {
        let size = Some("size=1m");
        mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), size).unwrap();
    };
    with_mounts(small_disk, |scene| {
        scene.install("web/a", "1").unwrap();
        fs::write(scene.path("ballast"), vec![0; 900 << 10]).unwrap();
        let large = "2".repeat(200 << 10);
        let batch = [scene.judged("web/a", &large), scene.judged("web/b", "2")];
        let outcomes = scene.host().carry_out(batch.into());
        let errors: Vec<String> =
            outcomes.into_iter().filter_map(|(_, outcome)| Some(outcome.err()?.in_full())).collect();
        let path = scene.path("web/a");
        let expected = format!("writing {} (make room on the node's disk): No space left", path.display());
        assert!(matches!(&errors[..], [error] if error.starts_with(&expected)), "{errors:?}");
        assert_eq!((scene.version("web/a"), scene.version("web/b")), (Some("1"), Some("2")));
        assert_eq!(scene.temporaries(), Vec::<PathBuf>::new());
        fs::remove_file(scene.path("ballast")).unwrap();
        scene.install("web/a", &large).unwrap();
        assert_eq!(fs::read(scene.path("web/a")).unwrap(), document(&large).content());
    });
}

#[test]
fn a_read_only_disk_is_said_and_changes_nothing() {
    let disk =
        |path: &Path| mount(Some("none"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    with_mounts(disk, |scene| {
        scene.install("web/a", "1").unwrap();
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &scene.path(""), None::<&str>, flags, None::<&str>).unwrap();
        let found = scene.restart();
        for reference in ["web/a", "web/b", "other/c"] {
            let error = scene.install(reference, "2").unwrap_err().in_full();
            assert!(error.contains("disk is read-only after a failure, or"), "{error}");
        }
        assert_eq!(scene.restart(), found);
        assert_eq!((scene.version("web/a"), scene.owns("web/b")), (Some("1"), false));
    });
}

#[test]
fn what_somebody_puts_there_meanwhile_is_not_ours_even_if_the_ledger_can_not_be_written() {
    let mut scene = Scene::new();
    let path = scene.path("web/a");
    let is_there = Cell::new(false);
    let watcher = move |step: Step, told: &Path| {
        if step == Step::Rename && told.ends_with("web/a") {
            fs::write(&path, "somebody's").unwrap();
            is_there.set(true);
        }
        let is_full = is_there.get() && step == Step::Write && told.ends_with("ledger.json");
        if is_full { Err(Errno::ENOSPC) } else { Ok(()) }
    };
    assert_eq!(scene.install_watched(&["web/a"], watcher), ["web/a: writing"]);
    assert!(!scene.owns("web/a"));
    assert_eq!(scene.install_watched(&["web/a", "web/b"], |_, _| Ok(())), Vec::<String>::new());
    assert_eq!(fs::read_to_string(scene.path("web/a")).unwrap(), "somebody's");
    assert_eq!(scene.version("web/b"), Some("2"));
    let ledger = fs::read_to_string(scene.temporary.path().join("state/ledger.json")).unwrap();
    assert!(ledger.contains("web/b") && !ledger.contains("web/a"), "{ledger}");
}
