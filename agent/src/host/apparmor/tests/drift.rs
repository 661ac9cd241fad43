//! What somebody else does to profiles of ours, and what a reboot does.

use super::*;

/// Claims what is found after `change`, and that another load brings back what is ours.
fn check(digests: Digests, change: fn(&FakeKernel), expected: InKernel) {
    let mut scene = Scene::with(digests);
    scene.load(&[TEXT]);
    change(&scene.kernel);
    assert_eq!(scene.in_kernel("a"), Some(expected), "{digests:?}");
    assert_eq!(scene.restart().get(&"a".parse().unwrap()).unwrap().kernel, expected, "{digests:?}");
    let is_right = expected == InKernel::Ours(blob_of(TEXT));
    assert_eq!(scene.load_kept(&[TEXT]), all(&["a", "b"], "ours"));
    assert_eq!(scene.kernel.writes(), if is_right { 1 } else { 2 }, "{digests:?} {expected:?}");
    assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(TEXT))));
    assert_eq!(scene.kernel.modes(), "a enforce, a//hat enforce, b complain");
}

#[test]
fn whatever_somebody_changes_is_told_and_brought_back() {
    let ours = InKernel::Ours(blob_of(TEXT));
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        check(digests, |_| {}, ours);
        check(digests, |kernel| kernel.remove("a").unwrap(), InKernel::Absent);
        check(digests, |kernel| kernel.remove("a//hat").unwrap(), InKernel::Changed(NO_CHILD));
        check(digests, |kernel| kernel.set_mode("a", Mode::Complain), InKernel::Changed(OTHER_MODE));
        check(digests, |kernel| kernel.set_mode("a//hat", Mode::Kill), InKernel::Changed(OTHER_CHILD));
        // A kernel that tells no digests is believed.
        let seen = |what| if digests == Digests::None { ours } else { InKernel::Changed(what) };
        if digests != Digests::None {
            check(digests, |kernel| kernel.plant("a enforce\n# x"), seen(OTHER_RULES));
            check(digests, |kernel| kernel.plant("a//hat enforce\n# x"), seen(OTHER_CHILD));
        }
    }
}

#[test]
fn a_kernel_that_tells_no_digests_is_believed_for_this_boot_only() {
    let mut scene = Scene::with(Digests::None);
    scene.load(&[TEXT]);
    scene.kernel.plant("a enforce\n# somebody's");
    assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(TEXT))));
    scene.reboot();
    scene.kernel.plant("a enforce\n# somebody's");
    assert_eq!(scene.restart().keys().map(ProfileName::as_str).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn after_a_reboot_all_is_loaded_again_from_the_store() {
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        let mut scene = Scene::with(digests);
        scene.load(&[TEXT]);
        scene.reboot();
        let found = scene.restart();
        assert!(found.values().all(|found| found.kernel == InKernel::Absent && found.is_current));
        assert_eq!(found.len(), 2);
        assert_eq!(scene.load_kept(&[TEXT]), all(&["a", "b"], "ours"));
        assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(TEXT))));
    }
}

#[test]
fn what_somebody_loads_after_a_reboot_is_theirs_unless_it_is_equal() {
    let mut scene = Scene::new();
    scene.load(&["a enforce\n# 1", "b enforce\n# 1"]);
    scene.reboot();
    scene.kernel.plant("a enforce\n# 1");
    scene.kernel.plant("b enforce\n# somebody's");
    let found = scene.restart();
    let kernel: Vec<InKernel> = found.values().map(|found| found.kernel).collect();
    assert_eq!(kernel, [InKernel::Ours(blob_of("a enforce\n# 1"))]);
    assert!(!scene.owns("b"));
    // From now on it is ours, and what changes is a drift.
    scene.kernel.plant("a enforce\n# somebody's");
    assert_eq!(scene.restart().into_values().next().unwrap().kernel, InKernel::Changed(OTHER_RULES));
    let outcomes = scene.load(&["a enforce\n# 1", "b enforce\n# 1"]);
    assert_eq!(outcomes[0], ("b".to_owned(), format!("foreign: {OTHER_RULES}")));
    assert_eq!(outcomes[1], ("a".to_owned(), "ours".to_owned()));
}

#[test]
fn a_load_before_any_scan_of_this_boot_replaces_nothing_of_somebody_elses() {
    let mut scene = Scene::new();
    scene.load(&[TEXT]);
    scene.reboot();
    let host = scene.open().unwrap();
    scene.host = Some(host);
    scene.kernel.plant("a enforce\n# somebody's");
    assert_eq!(scene.load_kept(&[TEXT])[0], ("a".to_owned(), format!("foreign: {OTHER_RULES}")));
    assert_eq!(scene.kernel.writes(), 0);
}
