//! What somebody does to files of ours while the agent runs, on a real file system and with the real inotify.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{chown, geteuid, mkfifo};

use super::*;

/// Within this time a change is to be told.
const SOON: Duration = Duration::from_secs(10);
/// Long enough for what is told late.
const QUIET: Duration = Duration::from_millis(100);

impl Scene {
    fn with(reference: &str) -> Self {
        let mut scene = Self::new();
        scene.install(reference, "1").unwrap();
        scene.scan();
        scene
    }

    fn scan(&mut self) -> BTreeMap<Reference, Found> {
        self.host().scan(Care::Glance).unwrap()
    }

    /// Claims what a scan finds at `reference`, and that an install repairs it.
    fn check_repaired(&mut self, reference: &str, drift: Found) {
        let ours = Found::Ours(document("1").digest());
        assert_eq!(self.scan(), found(&[(reference, drift)]));
        assert_eq!(
            self.install(reference, "1").unwrap(),
            Installed::Written(document("1").digest()),
            "{drift:?}"
        );
        let status = fs::symlink_metadata(self.path(reference)).unwrap();
        assert_eq!((status.is_file(), status.mode() & 0o7777), (true, 0o644), "{drift:?}");
        assert_eq!(fs::read(self.path(reference)).unwrap(), document("1").content());
        assert_eq!(self.scan(), found(&[(reference, ours)]));
    }
}

/// What somebody does to a file.
type Drift = fn(&Path);

#[test]
fn every_drift_of_a_file_is_found_and_repaired() {
    let drifts: [(Found, Drift); 10] = [
        (Found::Changed(OTHER_CONTENT), |path| fs::write(path, "{}").unwrap()),
        (Found::Changed(OTHER_CONTENT), |path| drop(fs::File::create(path).unwrap())),
        (Found::Changed(OTHER_CONTENT), |path| {
            fs::File::options().write(true).open(path).unwrap().set_len(2 << 20).unwrap();
        }),
        (Found::Changed(OTHER_MODE), |path| {
            fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        }),
        (Found::Changed(OTHER_MODE), |path| {
            fs::set_permissions(path, Permissions::from_mode(0o4644)).unwrap();
        }),
        (Found::Absent, |path| fs::remove_file(path).unwrap()),
        (Found::NotAFile("a symbolic link"), |path| {
            let elsewhere = path.with_extension("elsewhere");
            fs::rename(path, &elsewhere).unwrap();
            symlink(elsewhere, path).unwrap();
        }),
        (Found::NotAFile(DIRECTORY), |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        (Found::NotAFile("a FIFO"), |path| {
            fs::remove_file(path).unwrap();
            mkfifo(path, Mode::S_IRWXU).unwrap();
        }),
        (Found::NotAFile("a socket or device"), |path| {
            fs::remove_file(path).unwrap();
            drop(UnixListener::bind(path).unwrap());
        }),
    ];
    let mut scene = Scene::with("web/a");
    for (found, drift) in drifts {
        drift(&scene.path("web/a"));
        scene.check_repaired("web/a", found);
    }
    assert_eq!(fs::read(scene.path("web/a.elsewhere")).unwrap(), document("1").content());
}

#[test]
fn another_owner_is_found_and_repaired() {
    assert!(geteuid().is_root(), "only root can give files away: run the tests as root");
    let mut scene = Scene::with("web/a");
    chown(&scene.path("web/a"), Some(Uid::from_raw(65534)), None).unwrap();
    scene.check_repaired("web/a", Found::Changed(OTHER_MODE));
}

#[test]
fn a_directory_that_holds_something_is_left_and_said() {
    let mut scene = Scene::with("web/a");
    fs::remove_file(scene.path("web/a")).unwrap();
    fs::create_dir_all(scene.path("web/a/inner")).unwrap();
    assert_eq!(scene.scan(), found(&[("web/a", Found::NotAFile(DIRECTORY))]));
    assert_eq!(scene.install("web/a", "1").unwrap(), Installed::Foreign(FULL_DIRECTORY));
    assert!(scene.path("web/a/inner").is_dir() && scene.owns("web/a"));
    fs::remove_dir(scene.path("web/a/inner")).unwrap();
    scene.check_repaired("web/a", Found::NotAFile(DIRECTORY));
}

#[test]
fn what_is_in_the_place_of_a_directory_is_left_and_said() {
    let mut scene = Scene::with("_team/web/a");
    let elsewhere = scene.temporary.path().join("elsewhere");
    fs::rename(scene.path("_team"), &elsewhere).unwrap();
    for put in [|path: &Path| fs::write(path, "x"), |path: &Path| symlink("../../elsewhere", path)] {
        put(&scene.path("_team")).unwrap();
        assert_eq!(scene.scan(), found(&[("_team/web/a", Found::NotAFile(NO_WAY))]));
        assert_eq!(scene.install("_team/web/a", "2").unwrap(), Installed::Foreign(NO_WAY));
        assert!(scene.owns("_team/web/a"));
        fs::remove_file(scene.path("_team")).unwrap();
    }
    assert_eq!(fs::read(elsewhere.join("web/a")).unwrap(), document("1").content());
    scene.check_repaired("_team/web/a", Found::Absent);
}

#[test]
fn a_change_that_keeps_size_and_times_is_found() {
    let mut scene = Scene::with("web/a");
    thread::sleep(Duration::from_millis(1100));
    scene.scan();
    assert!(!scene.host().seen.is_empty(), "what has settled is not read again");
    let before = fs::metadata(scene.path("web/a")).unwrap().modified().unwrap();
    scene.plant("web/a", "2");
    fs::File::options().write(true).open(scene.path("web/a")).unwrap().set_modified(before).unwrap();
    scene.check_repaired("web/a", Found::Changed(OTHER_CONTENT));
}

#[test]
fn changes_right_after_each_other_are_all_found() {
    let mut scene = Scene::with("web/a");
    for round in 0..200 {
        scene.plant("web/a", "2");
        assert_eq!(scene.scan(), found(&[("web/a", Found::Changed(OTHER_CONTENT))]), "{round}");
        scene.plant("web/a", "1");
        assert_eq!(scene.scan(), found(&[("web/a", Found::Ours(document("1").digest()))]), "{round}");
    }
}

#[test]
fn a_directory_of_ours_that_is_deleted_is_made_anew() {
    let mut scene = Scene::with("_team/web/a");
    for directory in ["_team/web", "_team", ""] {
        fs::remove_dir_all(scene.path(directory)).unwrap();
        scene.check_repaired("_team/web/a", Found::Absent);
    }
}

#[test]
fn a_seccomp_directory_that_is_replaced_is_found_again() {
    let mut scene = Scene::with("web/a");
    fs::rename(scene.path(""), scene.temporary.path().join("old")).unwrap();
    fs::create_dir_all(scene.path("web")).unwrap();
    scene.check_repaired("web/a", Found::Absent);
}

#[test]
fn a_seccomp_directory_that_can_not_be_made_anew_ends_the_scan() {
    let mut scene = Scene::with("web/a");
    fs::remove_dir_all(scene.path("")).unwrap();
    fs::write(scene.temporary.path().join("kubelet/seccomp"), "x").unwrap();
    let error = scene.host().scan(Care::Glance).unwrap_err();
    assert!(error.to_string().contains("deleted or moved"), "{error}");
}

#[test]
fn a_lost_state_directory_ends_the_scan() {
    for lose in
        [|path: &Path| fs::remove_dir_all(path), |path: &Path| fs::rename(path, path.with_extension("old"))]
    {
        let mut scene = Scene::with("web/a");
        let state = scene.temporary.path().join("state");
        lose(&state).unwrap();
        fs::create_dir(&state).unwrap();
        let error = scene.host().scan(Care::Glance).unwrap_err();
        assert!(error.in_full().contains("the next one adopts"), "{error}");
    }
}

/// Runs `body` on a thread with mounts of its own, and the seccomp directory of its scene mounted by `make`,
/// which is told where.
pub(super) fn with_mounts(
    make: impl FnOnce(&Path) + Send + 'static,
    body: impl FnOnce(&mut Scene) + Send + 'static,
) {
    let mounted = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("only root can mount: run the tests as root");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let mut scene = Scene::new();
        make(&scene.path(""));
        scene.restart();
        body(&mut scene);
        umount2(&scene.path(""), MntFlags::MNT_DETACH).unwrap();
    };
    thread::spawn(mounted).join().unwrap();
}

/// Runs `body` with the scene's seccomp directory mounted from elsewhere, as in a container. It is told where
/// from.
fn in_container(body: impl FnOnce(&mut Scene, &Path) + Send + 'static) {
    let source = |scene: &Path| scene.parent().unwrap().with_file_name("source");
    let bind = move |path: &Path| {
        fs::create_dir(source(path)).unwrap();
        mount(Some(&source(path)), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    };
    with_mounts(bind, move |scene| {
        scene.install("web/a", "1").unwrap();
        let source = scene.temporary.path().join("source");
        body(scene, &source);
    });
}

#[test]
fn a_container_that_lost_the_nodes_directory_ends_the_scan() {
    let losses: [Drift; 3] = [
        |source| fs::remove_dir_all(source).unwrap(),
        |source| {
            fs::remove_dir_all(source).unwrap();
            fs::create_dir(source).unwrap();
        },
        |source| fs::rename(source, source.with_extension("old")).unwrap(),
    ];
    for lose in losses {
        in_container(move |scene, source| {
            fs::remove_file(scene.path("web/a")).unwrap();
            scene.check_repaired("web/a", Found::Absent);
            let mut changes = scene.host().changes().boxed_local();
            scene.scan();
            thread::sleep(QUIET);
            changes.next().now_or_never();
            lose(source);
            thread::sleep(QUIET);
            assert!(changes.next().now_or_never().is_some(), "told");
            let error = scene.host().scan(Care::Glance).unwrap_err();
            assert!(error.to_string().contains("deleted or moved"), "{error}");
        });
    }
}

#[test]
fn an_agent_whose_seccomp_directory_is_not_the_kubelets_does_not_start() {
    in_container(|scene, _| {
        let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
        let pod = scene.temporary.path().join("kubelet/pods/6d1c");
        fs::create_dir_all(&pod).unwrap();
        fs::write(pod.join("etc-hosts"), "").unwrap();
        mount(Some(&pod.join("etc-hosts")), "/etc/hosts", none, bind, none).unwrap();
        let error = scene.open("kubelet").unwrap_err().to_string();
        assert!(error.contains("/source in the node's file system"), "{error}");

        umount2(&scene.path(""), MntFlags::empty()).unwrap();
        mount(Some(&scene.path("")), &scene.path(""), none, bind, none).unwrap();
        fs::remove_file(scene.temporary.path().join("state/ledger.json")).unwrap();
        scene.open("kubelet").unwrap();
        umount2("/etc/hosts", MntFlags::empty()).unwrap();
    });
}

#[test]
fn a_file_that_is_adopted_gets_the_mode_of_ours() {
    let mut scene = Scene::new();
    scene.plant("web/a", "1");
    scene.set_mode("web/a", 0o600);
    assert_eq!(scene.install("web/a", "1").unwrap(), Installed::Adopted(document("1").digest()));
    scene.check_repaired("web/a", Found::Changed(OTHER_MODE));
}

#[tokio::test]
async fn every_drift_is_told_at_once_and_a_scan_tells_nothing() {
    let drifts: [(&str, Drift); 6] = [
        ("content", |root| fs::write(root.join("_team/web/a"), "{}").unwrap()),
        ("file", |root| fs::remove_file(root.join("_team/web/a")).unwrap()),
        ("bundle's directory", |root| fs::remove_dir_all(root.join("_team/web")).unwrap()),
        ("namespace's directory", |root| fs::remove_dir_all(root.join("_team")).unwrap()),
        ("empty seccomp directory", |root| {
            fs::remove_dir_all(root).unwrap();
            fs::create_dir(root).unwrap();
        }),
        ("seccomp directory", |root| fs::rename(root, root.with_extension("old")).unwrap()),
    ];
    let mut scene = Scene::new();
    let mut changes = scene.host().changes().boxed_local();
    scene.scan();
    for (what, drift) in drifts {
        scene.install("_team/web/a", "1").unwrap();
        assert!(tokio::time::timeout(SOON, changes.next()).await.is_ok(), "a write is told");
        scene.scan();
        while tokio::time::timeout(QUIET, changes.next()).await.is_ok() {
            scene.scan();
        }
        scene.host().scan(Care::Read).unwrap();
        assert!(tokio::time::timeout(QUIET, changes.next()).await.is_err(), "a scan is not told");
        drift(&scene.path(""));
        assert!(tokio::time::timeout(SOON, changes.next()).await.is_ok(), "{what}");
        scene.scan();
    }
}

#[tokio::test]
async fn a_profile_in_a_directory_that_was_there_is_watched_as_well() {
    let mut scene = Scene::new();
    let mut changes = scene.host().changes().boxed_local();
    fs::create_dir(scene.path("mine")).unwrap();
    scene.scan();
    scene.install("mine/a", "1").unwrap();
    while tokio::time::timeout(QUIET, changes.next()).await.is_ok() {
        scene.scan();
    }
    fs::remove_file(scene.path("mine/a")).unwrap();
    assert!(tokio::time::timeout(SOON, changes.next()).await.is_ok());
}
