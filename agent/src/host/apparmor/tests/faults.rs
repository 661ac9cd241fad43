//! Batches of which a step fails, or after each step of which the agent crashes or the power fails.

use std::process::Command;

use super::*;
use crate::host::fault::tests::watched;

/// Stores and loads the second version of the text and a new one, while `watcher` is told each step. Returns
/// the profiles that did not become ours.
fn load_watched(
    scene: &mut Scene,
    watcher: impl FnMut(Step, &Path) -> nix::Result<()> + 'static,
) -> Vec<String> {
    let outcomes = watched(watcher, || {
        let mut failed = Vec::new();
        let mut stored = Vec::new();
        for text in BATCH {
            let kept = scene.host().keep(text, &compile(text), &names(text));
            if kept.is_ok() {
                stored.push(text);
            } else {
                failed.extend(names(text).iter().map(|name| (name.to_string(), String::new())));
            }
        }
        failed.extend(scene.load_kept(&stored));
        failed
    });
    let failed = outcomes.into_iter().filter(|(_, outcome)| outcome != "ours");
    failed.map(|(name, _)| name).collect()
}

const BATCH: [&str; 2] = [EDITED, "c enforce"];

/// Claims which profiles fail, what the kernel has of `a` and `c`, and who is owned, if `step` fails on what
/// is called `name`.
fn check(step: Step, name: &'static str, failed: &[&str], versions: [Option<&str>; 2]) {
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        let mut scene = Scene::with(digests);
        scene.load(&[TEXT]);
        let mut is_first = true;
        let fail = move |told: Step, path: &Path| {
            let is_it = told == step && path.display().to_string().ends_with(name);
            if is_it && std::mem::take(&mut is_first) { Err(Errno::ENOSPC) } else { Ok(()) }
        };
        let case = format!("{step:?} of {name} with {digests:?}");
        assert_eq!(load_watched(&mut scene, fail), failed, "{case}");
        let found = scene.restart();
        let kernel = |name: &str| found.get(&name.parse().unwrap()).map(|found| found.kernel);
        let blobs = versions.map(|version| version.map(|text| InKernel::Ours(blob_of(text))));
        if digests != Digests::None {
            assert_eq!([kernel("a"), kernel("c")], blobs, "{case}");
        }
        assert_eq!(scene.owns("c"), versions[1].is_some(), "{case}");
        assert_eq!(load_watched(&mut scene, |_, _| Ok(())), Vec::<String>::new(), "{case}, tried again");
        assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(EDITED))), "{case}, tried again");
        assert_eq!(scene.in_kernel("c"), Some(InKernel::Ours(blob_of(BATCH[1]))), "{case}, tried again");
    }
}

#[test]
fn whatever_step_fails_what_was_there_stays_and_the_rest_is_served() {
    let (old, new, c) = (Some(TEXT), Some(EDITED), Some(BATCH[1]));
    check(Step::Write, ".text", &["a", "b"], [old, c]);
    check(Step::Write, ".blob", &["a", "b"], [old, c]);
    check(Step::Rename, ".blob", &["a", "b"], [old, c]);
    check(Step::SyncDirectory, "state/apparmor", &["a", "b"], [old, c]);
    check(Step::Write, "apparmor.json", &["a", "b", "c"], [old, None]);
    check(Step::Load, "policy", &["a", "b"], [old, c]);
    check(Step::Verify, "policy", &["a", "b", "c"], [new, c]);
}

#[test]
fn a_new_text_whose_load_fails_is_not_ours() {
    let mut scene = Scene::new();
    scene.keep("c enforce");
    let fail = |step, _: &Path| if step == Step::Load { Err(Errno::EPROTO) } else { Ok(()) };
    let outcomes = watched(fail, || scene.load_kept(&["c enforce"]));
    assert!(outcomes[0].1.starts_with("changing the kernel's policy"), "{outcomes:?}");
    assert!(!scene.owns("c"));
    scene.kernel.plant("c enforce\n# somebody's");
    assert_eq!(scene.load_kept(&["c enforce"]), all(&["c"], &format!("foreign: {OTHER_RULES}")));
    // What the kernel refuses, such as children of children.
    let outcomes = scene.load(&["d enforce\nd//e enforce\nd//e//f enforce"]);
    assert!(outcomes[0].1.starts_with("loading .replace"), "{outcomes:?}");
    assert!(!scene.owns("d"));
}

/// Fails the first load.
fn refuse_the_first_load() -> impl FnMut(Step, &Path) -> nix::Result<()> {
    let mut is_first = true;
    move |step, _| {
        let is_it = step == Step::Load && std::mem::take(&mut is_first);
        if is_it { Err(Errno::EPROTO) } else { Ok(()) }
    }
}

#[test]
fn a_version_that_stays_for_a_failed_load_keeps_its_children() {
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        let mut scene = Scene::with(digests);
        scene.load(&["a enforce\na//hat enforce"]);
        let outcomes = watched(refuse_the_first_load(), || scene.load(&["a enforce\n# 2", "c enforce"]));
        assert!(outcomes[0].1.starts_with("changing the kernel's policy"), "{outcomes:?}");
        assert_eq!(outcomes[1..], all(&["c"], "ours"));
        assert_eq!(scene.kernel.modes(), "a enforce, a//hat enforce, c enforce", "{digests:?}");
    }
}

#[test]
fn an_edit_that_the_kernel_refuses_leaves_the_version_before_it_to_be_loaded_after_a_reboot() {
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        for is_loaded in [true, false] {
            let mut scene = Scene::with(digests);
            scene.load(&[TEXT]);
            if !is_loaded {
                scene.reboot();
                scene.restart();
            }
            for _ in 0..2 {
                let outcomes = watched(refuse_the_first_load(), || scene.load(&[EDITED]));
                assert!(outcomes.iter().all(|(_, outcome)| outcome != "ours"), "{outcomes:?}");
                scene.host().forget(&|text| text == digest_of(EDITED));
                let blob = is_loaded.then_some(InKernel::Ours(blob_of(TEXT)));
                assert_eq!(scene.in_kernel("a"), blob.or(Some(InKernel::Absent)), "{digests:?}");
            }
            scene.reboot();
            let found = scene.restart();
            assert_eq!(found.len(), 2);
            assert!(found.values().all(|found| found.text == digest_of(TEXT) && found.is_current));
            assert_eq!(scene.load_kept(&[TEXT]), all(&["a", "b"], "ours"), "{digests:?}");
            assert_eq!(scene.kernel.modes(), "a enforce, a//hat enforce, b complain");
        }
    }
}

#[test]
fn a_text_is_durable_before_the_ledger_has_it_and_the_ledger_before_the_kernel() {
    let mut scene = Scene::new();
    let steps = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let told = steps.clone();
    let state = scene.temporary.path().display().to_string();
    let watcher = move |step, path: &Path| {
        let path =
            path.display().to_string().replace(&state, "").replace(&digest_of("c enforce").to_string(), "");
        told.borrow_mut().push(format!("{step:?} {path}"));
        Ok(())
    };
    watched(watcher, || scene.load(&["c enforce"]));
    let expected = [
        "Write /state/apparmor/.text",
        "Sync /state/apparmor/.text",
        "Rename /state/apparmor/.text",
        "Write /state/apparmor/.blob",
        "Sync /state/apparmor/.blob",
        "Rename /state/apparmor/.blob",
        "SyncDirectory /state/apparmor",
        "Write /state/apparmor.json",
        "Sync /state/apparmor.json",
        "Rename /state/apparmor.json",
        "SyncDirectory /state",
        "Load the kernel's policy",
        "Verify the kernel's policy",
    ];
    assert_eq!(*steps.borrow(), expected);
}

/// Makes the directory `to` a copy of `from`.
fn copy(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to.join("state")));
    let status = Command::new("cp").arg("-a").arg(from.join("state")).arg(to).status().unwrap();
    assert!(status.success());
}

/// Claims that whatever step a crash comes before, what is found is right, and the work can be finished. With
/// `is_off` the kernel's policy is lost as well: the power failed.
fn check_crashes(digests: Digests, is_off: bool) {
    let mut scene = Scene::with(digests);
    scene.load(&[TEXT]);
    let crashes = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let (told, disk, kernel) = (crashes.clone(), scene.temporary.path().to_owned(), scene.kernel.clone());
    let watcher = move |step, path: &Path| {
        let then = tempfile::tempdir().unwrap();
        copy(&disk, then.path());
        told.borrow_mut().push((format!("{step:?} {}", path.display()), then, kernel.state()));
        Ok(())
    };
    assert_eq!(load_watched(&mut scene, watcher), Vec::<String>::new());
    let crashes = crashes.take();
    assert!(crashes.len() > 20, "{}", crashes.len());
    for (before, then, state) in crashes {
        let case = format!("before {before} with {digests:?}");
        copy(then.path(), scene.temporary.path());
        scene.kernel.restore(state);
        if is_off {
            scene.reboot();
        }
        let found = scene.restart();
        assert!(found.len() >= 2, "{case}");
        for (name, FoundPolicy { text, blob, is_current, kernel }) in found {
            let is_right = |digest| digest == blob_of(TEXT) || digest == blob_of(EDITED) || digest == blob;
            assert!(
                matches!(kernel, InKernel::Absent) || matches!(kernel, InKernel::Ours(it) if is_right(it))
            );
            assert!(is_off || name.as_str() == "c" || kernel != InKernel::Absent, "{case}");
            assert!(is_current && scene.host().text(text).is_some(), "{case}: {name}");
            let compiled = scene.host().compiled(text).map(|policy| policy.blob);
            assert_eq!(compiled, Some(blob), "{case}: {name}");
        }
        assert_eq!(load_watched(&mut scene, |_, _| Ok(())), Vec::<String>::new(), "{case}");
        assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(EDITED))), "{case}");
        assert_eq!(scene.kernel.raw_of("a"), compile(EDITED), "{case}");
        assert_eq!(scene.stored(), 4, "{case}");
    }
}

#[test]
fn a_crash_before_any_step_loses_nothing_and_is_finished() {
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        check_crashes(digests, false);
    }
}

#[test]
fn a_power_failure_before_any_step_loses_nothing_and_is_finished() {
    for digests in [Digests::Sha256, Digests::None] {
        check_crashes(digests, true);
    }
}

#[test]
fn a_crash_between_the_removal_and_the_ledger_is_finished() {
    let mut scene = Scene::new();
    scene.load(&[TEXT]);
    let full = |step, path: &Path| {
        if step == Step::Write && path.ends_with("apparmor.json") { Err(Errno::ENOSPC) } else { Ok(()) }
    };
    watched(full, || scene.unload("a").unwrap_err());
    assert_eq!(scene.restart().get(&"a".parse().unwrap()).unwrap().kernel, InKernel::Absent);
    assert_eq!(scene.unload("a").unwrap(), Unloaded::Removed);
    let fail = |step, _: &Path| if step == Step::Unload { Err(Errno::EPERM) } else { Ok(()) };
    watched(fail, || scene.unload("b").unwrap_err());
    assert!(scene.owns("b") && scene.in_kernel("b") == Some(InKernel::Ours(blob_of(TEXT))));
}
