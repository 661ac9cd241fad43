//! What is seen where pods refer to.

use std::cell::Cell;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use profiles::sight::Effect;

use super::*;

const CONFINED: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
const UNCONFINED: &str = "{}";
/// What is told is told at once; but machines that run tests are slow now and then.
const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(100);

fn place(path: &str) -> SeccompPath {
    SeccompPath::of(path).unwrap()
}

impl Scene {
    fn sight(&mut self, path: &str) -> FileSight {
        self.host().look(&[place(path)].into()).remove(&place(path)).unwrap()
    }

    fn effect(&mut self, path: &str) -> Option<Effect> {
        match self.sight(path) {
            FileSight::File(judged) => Some(judged.effect),
            _ => None,
        }
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }
}

#[test]
fn a_file_of_anybodys_is_judged() {
    let mut scene = Scene::new();
    scene.install("web/ours", "1").unwrap();
    for (path, text, expected) in [
        ("audit.json", CONFINED, Effect::Confined),
        ("a/b/c/d.json", CONFINED, Effect::Confined),
        ("empty", "", Effect::Unusable),
        ("unconfined", UNCONFINED, Effect::Unconfined),
        (
            "docker",
            r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"x"}]}"#,
            Effect::Weakened,
        ),
    ] {
        scene.write(path, text);
        assert_eq!(scene.effect(path), Some(expected), "{path}");
    }
    assert_eq!(
        scene.effect("web/ours"),
        Some(Effect::Confined),
        "ours are looked at, too, if that is asked for"
    );
    assert_eq!(fs::read_dir(scene.path("")).unwrap().count(), 6, "nothing is made by looking");
}

#[test]
fn what_is_no_file_is_told_without_blocking() {
    let mut scene = Scene::new();
    fs::create_dir(scene.path("directory")).unwrap();
    mkfifo(&scene.path("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(scene.path("socket")).unwrap();
    scene.write("file", CONFINED);
    scene.write("large", "");
    fs::File::options().write(true).open(scene.path("large")).unwrap().set_len(2 << 20).unwrap();
    let long = "n".repeat(5000);
    for (path, expected) in [
        ("absent", FileSight::Absent),
        ("absent/absent", FileSight::Absent),
        (&long, FileSight::Absent),
        ("zero\0byte", FileSight::Absent),
        ("directory", FileSight::NotAFile("a directory")),
        ("fifo", FileSight::NotAFile("a FIFO")),
        ("socket", FileSight::NotAFile("a socket or device")),
        ("file/below", FileSight::NotAFile("below something that is no directory")),
        ("large", FileSight::Unreadable("it is larger than any profile that fits into a bundle".to_owned())),
    ] {
        assert_eq!(scene.sight(path), expected, "{path}");
    }
}

#[test]
fn what_can_not_be_read_is_not_called_absent() {
    without_capabilities(|| {
        let mut scene = Scene::new();
        scene.write("secret", CONFINED);
        scene.set_mode("secret", 0o000);
        assert_eq!(scene.sight("secret"), FileSight::Unreadable("Permission denied".to_owned()));
    });
}

#[test]
fn a_link_is_followed_as_far_as_the_node_can_be_seen() {
    let mut scene = Scene::new();
    scene.write("real/file", CONFINED);
    let outside = scene.temporary.path().join("outside");
    fs::write(&outside, CONFINED).unwrap();
    for (link, target) in [
        ("link", "real/file"),
        ("directory", "real"),
        ("dangling", "nowhere"),
        ("circle", "circle"),
        ("out", "../../outside"),
        ("absolute", outside.to_str().unwrap()),
    ] {
        symlink(target, scene.path(link)).unwrap();
    }
    let leads_out = || FileSight::Unreadable("a symbolic link leads out of the seccomp directory".to_owned());
    for path in ["link", "directory/file"] {
        assert_eq!(scene.effect(path), Some(Effect::Confined), "{path}");
    }
    for (path, expected) in [
        ("dangling", FileSight::Absent),
        ("circle", FileSight::NotAFile("a symbolic link that leads nowhere")),
        ("out", leads_out()),
        ("absolute", leads_out()),
    ] {
        assert_eq!(scene.sight(path), expected, "{path}");
    }
}

#[test]
fn a_file_that_changes_is_judged_anew_and_one_that_does_not_is_not_read() {
    let mut scene = Scene::new();
    scene.write("f", CONFINED);
    assert_eq!(scene.effect("f"), Some(Effect::Confined));
    scene.write("f", UNCONFINED);
    assert_eq!(scene.effect("f"), Some(Effect::Unconfined), "as soon as it is changed");

    let root = Directory::open(&scene.path("")).unwrap();
    let judged = |places: &mut Places| {
        let FileSight::File(judged) = places.look(&root, &place("f")) else { panic!("f is a file") };
        judged.diagnostics
    };
    let mut places = Places::new(platform::of_this_machine().unwrap());
    places.ask(&[place("f")].into());
    thread::sleep(Duration::from_millis(1100));
    let (first, second) = (judged(&mut places), judged(&mut places));
    assert!(std::sync::Arc::ptr_eq(&first, &second), "it was judged again");
    places.scan(Care::Read);
    assert!(!std::sync::Arc::ptr_eq(&first, &judged(&mut places)), "it was not read");
}

#[tokio::test]
async fn what_comes_or_changes_where_pods_refer_to_is_told() {
    let mut scene = Scene::new();
    let mut changes = scene.host().changes().boxed_local();
    let mut settle = async |scene: &mut Scene, path: &str| {
        while tokio::time::timeout(QUIET, changes.next()).await.is_ok() {}
        scene.host().scan(Care::Glance).unwrap();
        let sight = scene.sight(path);
        // Neither scan nor look is a change.
        assert!(
            tokio::time::timeout(QUIET, changes.next()).await.is_err(),
            "{path}: looking leads to a look"
        );
        sight
    };
    assert_eq!(settle(&mut scene, "a/b/f").await, FileSight::Absent);
    fs::create_dir_all(scene.path("a/b")).unwrap();
    assert_eq!(settle(&mut scene, "a/b/f").await, FileSight::Absent);
    let mut told = scene.host().changes().boxed_local();
    fs::write(scene.path("a/b/f"), CONFINED).unwrap();
    assert!(tokio::time::timeout(PATIENCE, told.next()).await.is_ok(), "a file comes");
    assert!(matches!(scene.sight("a/b/f"), FileSight::File(_)));
    scene.host().scan(Care::Glance).unwrap();
    scene.host().scan(Care::Glance).unwrap();
    assert!(scene.host().places.directories(|_| true).is_empty(), "what nobody asks for is forgotten");
}

#[test]
fn a_deep_place_costs_no_more_than_the_directories_that_are_there() {
    let mut places = Places::new(platform::of_this_machine().unwrap());
    places.ask(&[place(&"a/".repeat(2_000)), place("b/c/f")].into());
    let asked = Cell::new(0);
    let is_there = |path: &str| {
        asked.set(asked.get() + 1);
        ["a", "a/a", "b", "b/c"].contains(&path)
    };
    assert_eq!(places.directories(is_there), ["a", "a/a", "b", "b/c"].into());
    assert_eq!(asked.get(), 5);
}

#[tokio::test]
async fn pods_that_come_and_go_leave_few_places_behind() {
    let mut scene = Scene::new();
    let mut changes = scene.host().changes().boxed_local();
    for pod in 0..20 {
        let places: BTreeSet<SeccompPath> =
            (0..1000).map(|number| place(&format!("pod{pod}-{number}"))).collect();
        scene.host().look(&places);
        if changes.next().now_or_never().is_some() {
            scene.host().scan(Care::Glance).unwrap();
            scene.host().look(&places);
            assert!(!scene.host().places.ask(&places), "what is known leads to no other scan");
        }
    }
    assert!(!scene.host().places.are_many());
}

#[test]
fn pods_do_not_decide_how_much_is_watched() {
    let mut scene = Scene::new();
    let places: BTreeSet<SeccompPath> =
        (0..MOST_WATCHED + 10).map(|number| place(&format!("d{number}/f"))).collect();
    for place in &places {
        scene.write(place.as_str(), CONFINED);
    }
    scene.host().look(&places);
    let is_watched = |place: &&SeccompPath| {
        let directory = scene.path(place.as_str()).parent().unwrap().to_owned();
        scene.host.as_ref().unwrap().watch.is_on(&directory)
    };
    assert_eq!(places.iter().filter(is_watched).count(), MOST_WATCHED);
}
