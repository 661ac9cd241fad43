//! Installs and removals on a real file system.

mod drift;
mod faults;
mod sight;
mod since;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::thread;

use nix::errno::Errno;
use nix::unistd::{Uid, setfsuid};
use profiles::bundle::{Document, Profile};

use super::*;
use crate::examples::{judged, source};

struct Scene {
    temporary: tempfile::TempDir,
    host: Option<NodeHost>,
}

impl Scene {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join("kubelet")).unwrap();
        let mut scene = Self { temporary, host: None };
        scene.restart();
        scene
    }

    /// What a crash and the next start come to. Returns what the scan finds.
    fn restart(&mut self) -> BTreeMap<Reference, Found> {
        let host = self.open("kubelet").unwrap();
        self.host.insert(host).scan(Care::Glance).unwrap()
    }

    /// Opens the host anew, with this kubelet root.
    fn open(&mut self, kubelet_root: &str) -> Result<NodeHost> {
        self.host = None;
        let state_dir = self.temporary.path().join("state");
        let lock = Lock::try_take(&state_dir).unwrap().unwrap();
        NodeHost::open(&self.temporary.path().join(kubelet_root), &state_dir, lock)
    }

    fn host(&mut self) -> &mut NodeHost {
        self.host.as_mut().unwrap()
    }

    fn path(&self, reference: &str) -> PathBuf {
        self.temporary.path().join("kubelet/seccomp").join(reference)
    }

    /// Puts something there behind the agent's back.
    fn plant(&self, reference: &str, version: &str) {
        fs::create_dir_all(self.path(reference).parent().unwrap()).unwrap();
        fs::write(self.path(reference), document(version).content()).unwrap();
    }

    fn install(&mut self, reference: &str, version: &str) -> Result<Installed, HostError> {
        let install = Install { reference: reference.parse().unwrap(), document: document(version) };
        self.host().install(vec![install]).remove(0).1
    }

    /// An install of which nothing but the judging was done.
    fn judged(&mut self, reference: &str, version: &str) -> Pending {
        let install = Install { reference: reference.parse().unwrap(), document: document(version) };
        self.host().judge(install).unwrap_or_else(|outcome| panic!("{outcome:?}"))
    }

    fn set_mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).unwrap();
    }

    /// Whether nothing is left on the disk or in the ledger.
    fn is_clean(&mut self) -> bool {
        let FileRecord { files, directories, .. } = self.host().ledger.record();
        let is_forgotten = files.is_empty() && directories.is_empty();
        is_forgotten && fs::read_dir(self.path("")).unwrap().next().is_none()
    }

    fn remove(&mut self, reference: &str) {
        self.host().remove(vec![reference.parse().unwrap()]).remove(0).1.unwrap();
    }

    fn owns(&mut self, reference: &str) -> bool {
        let reference: Reference = reference.parse().unwrap();
        self.host().ledger.record().files.contains_key(&reference)
    }
}

/// Runs `body` as one whom modes apply to, as they do to the agent: it is root without capabilities.
fn without_capabilities(body: fn()) {
    let as_nobody = move || {
        // setfsuid(2): per thread. capabilities(7): CAP_DAC_OVERRIDE goes with it. Whoever is not root has
        // none.
        setfsuid(Uid::from_raw(65534));
        body();
    };
    thread::spawn(as_nobody).join().unwrap();
}

fn document(version: &str) -> Document {
    let text = format!(r#"{{"defaultAction":"SCMP_ACT_LOG","version":"{version}"}}"#);
    match judged(source("n", "b", &[("key", &text)])).profiles.into_values().next() {
        Some(Profile::Accepted(document, _)) => document,
        other => panic!("{other:?} is no accepted profile"),
    }
}

fn found(entries: &[(&str, Found)]) -> BTreeMap<Reference, Found> {
    entries.iter().map(|(reference, found)| (reference.parse().unwrap(), *found)).collect()
}

#[test]
fn a_profile_is_written_and_found_again() {
    let mut scene = Scene::new();
    for reference in ["web/a.json", "_team/web/a.json"] {
        let outcome = scene.install(reference, "1").unwrap();
        assert_eq!(outcome, Installed::Written(document("1").digest()));
        assert_eq!(fs::read(scene.path(reference)).unwrap(), document("1").content());
    }
    let ours = Found::Ours(document("1").digest());
    assert_eq!(scene.restart(), found(&[("web/a.json", ours), ("_team/web/a.json", ours)]));
}

#[test]
fn a_content_is_told_only_if_it_is_the_one_asked_for() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    let mut check = |reference: &str, version: &str, is_told: bool| {
        let told = scene.host().content(&reference.parse().unwrap(), document(version).digest());
        let told = told.map(|document| document.content().to_vec());
        assert_eq!(told, is_told.then(|| document(version).content().to_vec()), "{reference} {version}");
    };
    check("web/a", "1", true);
    check("web/a", "2", false);
    check("web/b", "1", false);
    check("other/a", "1", false);
}

#[test]
fn an_equal_file_is_adopted_and_not_rewritten() {
    let mut scene = Scene::new();
    scene.plant("web/a.json", "1");
    let before = fs::metadata(scene.path("web/a.json")).unwrap();
    assert_eq!(scene.install("web/a.json", "1").unwrap(), Installed::Adopted(document("1").digest()));
    assert_eq!(fs::metadata(scene.path("web/a.json")).unwrap().ino(), before.ino());
    assert!(scene.owns("web/a.json"));
}

#[test]
fn a_foreign_object_is_left_alone() {
    let mut scene = Scene::new();
    scene.plant("web/file", "other");
    fs::create_dir(scene.path("web/directory")).unwrap();
    symlink("file", scene.path("web/link")).unwrap();
    for (reference, what) in
        [("web/file", FOREIGN_FILE), ("web/directory", "a directory"), ("web/link", "a symbolic link")]
    {
        assert_eq!(scene.install(reference, "1").unwrap(), Installed::Foreign(what));
        assert!(!scene.owns(reference), "{reference}");
    }
    assert_eq!(fs::read(scene.path("web/file")).unwrap(), document("other").content());
}

#[test]
fn a_link_on_the_way_is_not_followed() {
    let mut scene = Scene::new();
    let outside = scene.temporary.path().join("outside");
    fs::create_dir_all(outside.join("web")).unwrap();
    symlink(&outside, scene.path("bundle")).unwrap();
    symlink(&outside, scene.path("_team")).unwrap();
    fs::create_dir(scene.path("_other")).unwrap();
    symlink(outside.join("web"), scene.path("_other/web")).unwrap();
    for reference in ["bundle/a", "_team/web/a", "_other/web/a"] {
        assert_eq!(scene.install(reference, "1").unwrap(), Installed::Foreign(NO_WAY), "{reference}");
        scene.remove(reference);
    }
    assert_eq!(fs::read_dir(outside.join("web")).unwrap().count(), 0);
}

#[test]
fn an_edit_replaces_what_is_ours_even_if_somebody_changed_it() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    scene.plant("web/a", "by hand");
    assert_eq!(scene.restart(), found(&[("web/a", Found::Changed(OTHER_CONTENT))]));
    assert_eq!(scene.install("web/a", "1").unwrap(), Installed::Written(document("1").digest()));
    assert_eq!(scene.restart(), found(&[("web/a", Found::Ours(document("1").digest()))]));
}

#[test]
fn a_file_of_ours_that_can_not_be_read_is_written_anew() {
    without_capabilities(|| {
        let mut scene = Scene::new();
        scene.install("web/a", "1").unwrap();
        scene.set_mode("web/a", 0o000);
        assert!(fs::read(scene.path("web/a")).is_err());
        assert_eq!(scene.restart(), found(&[("web/a", Found::Changed(UNREADABLE))]));
        assert_eq!(scene.install("web/a", "1").unwrap(), Installed::Written(document("1").digest()));
        assert_eq!(fs::read(scene.path("web/a")).unwrap(), document("1").content());
        scene.set_mode("web/a", 0o000);
        scene.remove("web/a");
        assert!(scene.is_clean());
    });
}

#[test]
fn a_foreign_file_that_can_not_be_read_is_left_alone() {
    without_capabilities(|| {
        let mut scene = Scene::new();
        scene.plant("web/a", "other");
        scene.set_mode("web/a", 0o000);
        scene.install("web/a", "1").unwrap_err();
        scene.set_mode("web/a", 0o644);
        assert_eq!(fs::read(scene.path("web/a")).unwrap(), document("other").content());
        assert!(!scene.owns("web/a"));
    });
}

#[test]
fn an_install_that_failed_leaves_nothing_behind() {
    without_capabilities(|| {
        let mut scene = Scene::new();
        scene.set_mode("", 0o555);
        for reference in ["web/a", "_team/web/a"] {
            scene.install(reference, "1").unwrap_err();
            assert!(scene.is_clean(), "{reference}");
        }
    });
}

#[test]
fn an_install_that_failed_in_part_keeps_what_came_true() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    fs::create_dir_all(scene.path("full/~pavise0")).unwrap();
    let batch = ["web/a", "web/b", "full/c"].map(|reference| scene.judged(reference, "2"));
    let outcomes = scene.host().carry_out(batch.into());
    let failed: Vec<String> =
        outcomes.iter().filter(|(_, one)| one.is_err()).map(|(reference, _)| reference.to_string()).collect();
    assert_eq!(failed, ["full/c"]);
    assert_eq!(["web/a", "web/b", "full/c"].map(|reference| scene.owns(reference)), [true, true, false]);
    assert!(scene.path("full").exists(), "a directory that was there before stays");
}

#[test]
fn what_was_written_is_ours_even_if_it_may_not_be_durable() {
    let mut scene = Scene::new();
    let batch = [scene.judged("web/a", "1")];
    scene.host().intend(&batch).unwrap();
    scene.plant("web/a", "1");
    let reference: Reference = "web/a".parse().unwrap();
    let error = HostError::new("making durable", &scene.path("web"), Errno::EIO);
    scene.host().take_back(&[reference.clone()].into(), &mut vec![(reference, Err(error))]);
    assert!(scene.owns("web/a"));
}

#[test]
fn a_file_that_came_after_a_failed_install_is_foreign() {
    let mut scene = Scene::new();
    fs::create_dir_all(scene.path("web/~pavise0")).unwrap();
    scene.install("web/a", "1").unwrap_err();
    scene.plant("web/a", "by hand");
    fs::remove_dir(scene.path("web/~pavise0")).unwrap();
    assert_eq!(scene.install("web/a", "1").unwrap(), Installed::Foreign(FOREIGN_FILE));
    assert_eq!(fs::read(scene.path("web/a")).unwrap(), document("by hand").content());
}

#[test]
fn a_file_that_came_during_an_install_is_foreign() {
    for version in ["by hand", "1"] {
        let mut scene = Scene::new();
        let pending = scene.judged("web/a", "1");
        scene.plant("web/a", version);
        let (_, outcome) = scene.host().carry_out(vec![pending]).remove(0);
        assert_eq!(outcome.unwrap(), Installed::Foreign(NEWCOMER));
        assert_eq!(fs::read(scene.path("web/a")).unwrap(), document(version).content());
        assert!(!scene.owns("web/a"));
    }
}

#[test]
fn a_crash_before_the_write_leaves_old_or_nothing_and_is_finished() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    let batch = ["web/a", "new/b"].map(|reference| scene.judged(reference, "2"));
    scene.host().intend(&batch).unwrap();
    fs::write(scene.path("web/~pavise0"), "half a prof").unwrap();

    let after = scene.restart();
    assert_eq!(after, found(&[("web/a", Found::Ours(document("1").digest())), ("new/b", Found::Absent)]));
    assert!(!scene.path("web/~pavise0").exists());
    for reference in ["web/a", "new/b"] {
        assert_eq!(scene.install(reference, "2").unwrap(), Installed::Written(document("2").digest()));
    }
}

#[test]
fn a_removal_takes_only_what_is_ours() {
    let mut scene = Scene::new();
    fs::create_dir(scene.path("mine")).unwrap();
    for reference in ["mine/a", "web/a", "web/b", "_team/web/a"] {
        scene.install(reference, "1").unwrap();
    }
    scene.plant("web/foreign", "x");
    for reference in ["mine/a", "web/a", "_team/web/a"] {
        scene.remove(reference);
        assert!(!scene.path(reference).exists());
    }
    assert!(scene.path("mine").exists(), "a directory that was there before stays");
    assert!(scene.path("web/b").exists() && scene.path("web/foreign").exists());
    assert!(!scene.path("_team").exists(), "a directory of ours that is empty goes");
    assert_eq!(scene.restart().len(), 1);
}

#[test]
fn a_removal_of_what_the_ledger_does_not_have_removes_nothing() {
    let mut scene = Scene::new();
    scene.plant("web/a", "other");
    scene.remove("web/a");
    assert_eq!(fs::read(scene.path("web/a")).unwrap(), document("other").content());
}

#[test]
fn half_a_file_keeps_no_directory() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    fs::write(scene.path("web/~pavise0"), "half a prof").unwrap();
    scene.remove("web/a");
    assert!(scene.is_clean());
}

#[test]
fn half_a_file_is_swept_from_a_directory_without_profiles() {
    let mut scene = Scene::new();
    fs::create_dir(scene.path("web")).unwrap();
    scene.host().ledger.commit(|record| record.directories.extend(["web".to_owned()])).unwrap();
    fs::write(scene.path("web/~pavise0"), "half a prof").unwrap();
    scene.restart();
    assert!(!scene.path("web/~pavise0").exists());
}

#[test]
fn what_is_no_file_any_more_is_left_and_no_longer_ours() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    fs::remove_file(scene.path("web/a")).unwrap();
    fs::create_dir(scene.path("web/a")).unwrap();
    assert_eq!(scene.restart(), found(&[("web/a", Found::NotAFile(DIRECTORY))]));
    scene.remove("web/a");
    assert!(scene.path("web/a").is_dir() && !scene.owns("web/a"));
}

#[test]
fn nothing_is_written_when_the_ledger_can_not_be() {
    let mut scene = Scene::new();
    let state_dir = scene.temporary.path().join("state");
    fs::create_dir(state_dir.join("~pavise0")).unwrap();
    let error = scene.install("web/a", "1").unwrap_err();
    assert!(error.in_full().contains("state/~pavise0"), "{}", error.in_full());
    assert!(!scene.path("web").exists() && !scene.owns("web/a"));
}

#[test]
fn another_kubelet_root_needs_another_ledger() {
    let mut scene = Scene::new();
    scene.install("web/a", "1").unwrap();
    let other = scene.temporary.path().join("other");
    fs::create_dir_all(other.join("seccomp/web")).unwrap();
    fs::write(other.join("seccomp/web/a"), "somebody's").unwrap();
    let error = scene.open("other").unwrap_err().to_string();
    assert!(error.contains("/other/seccomp") && error.contains("--state-dir of its own"), "{error}");
    assert_eq!(fs::read(other.join("seccomp/web/a")).unwrap(), b"somebody's");

    symlink("kubelet", scene.temporary.path().join("link")).unwrap();
    scene.open("link").unwrap();
    fs::remove_dir_all(scene.path("")).unwrap();
    assert_eq!(scene.restart(), found(&[("web/a", Found::Absent)]), "made anew, it is the same");
}

#[test]
fn a_link_to_the_kubelet_root_that_leads_elsewhere_now_ends_the_scan() {
    let mut scene = Scene::new();
    for name in ["one", "two"] {
        fs::create_dir(scene.temporary.path().join(name)).unwrap();
    }
    let link = scene.temporary.path().join("link");
    symlink("one", &link).unwrap();
    let mut host = scene.open("link").unwrap();
    host.scan(Care::Glance).unwrap();
    fs::remove_file(&link).unwrap();
    symlink("two", &link).unwrap();
    let error = host.scan(Care::Glance).unwrap_err();
    assert!(error.to_string().contains("deleted or moved"), "{error}");
}

#[test]
fn a_missing_kubelet_root_names_its_flag() {
    let error = Scene::new().open("absent").unwrap_err();
    assert!(format!("{error:#}").contains("--kubelet-root"), "{error:#}");
}
