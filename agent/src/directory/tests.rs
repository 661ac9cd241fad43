//! Directories of bundles, on a real disk.

use std::os::unix::fs::symlink;

use futures::stream::LocalBoxStream;
use profiles::bundle::Profile;

use super::*;
use crate::examples::PLATFORM;

const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
/// What is told is told at once; but machines that run tests are slow now and then.
const PATIENCE: Duration = Duration::from_secs(10);

struct Scene {
    temporary: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Self { temporary: tempfile::tempdir().unwrap() };
        fs::create_dir(scene.path("")).unwrap();
        scene
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.temporary.path().join("source").join(relative)
    }

    /// Puts `text` into a file, and makes the directories above.
    fn put(&self, relative: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn open(&self) -> BundleDirectory {
        let name = |text| Namespace::new(text).unwrap();
        BundleDirectory::open(&self.path(""), &name("home"), &[name("team")].into(), PLATFORM).unwrap()
    }

    /// What a look at it tells: `=` the bundles of a namespace, with `!` where they are refused, `?` its
    /// strays.
    fn told(&self, events: &[Event]) -> Vec<String> {
        let above = self.path("").display().to_string();
        let relative = |path: &String| path.trim_start_matches(&above).to_owned();
        let shown = |event: &Event| match event {
            Event::Strays { strays, .. } if strays.is_empty() => None,
            Event::Strays { namespace, strays } => {
                Some(format!("{namespace}?{}", strays.keys().map(relative).collect::<Vec<_>>().join(" ")))
            }
            Event::Listed { namespace, bundles } => Some(format!(
                "{namespace}={}",
                bundles.iter().flat_map(words_of).collect::<Vec<_>>().join(" ")
            )),
            other => panic!("{other:?} is no event of a directory"),
        };
        events.iter().filter_map(shown).collect()
    }

    /// Claims what the first look tells.
    fn check(&self, expected: &[&str]) {
        assert_eq!(self.told(&self.open().look()), expected);
    }
}

fn words_of(bundle: &Bundle) -> Vec<String> {
    let name = &bundle.id.name;
    if !bundle.is_readable() {
        return vec![format!("{name}/?")];
    }
    let word = |(key, profile): (_, &Profile)| match profile {
        Profile::Accepted(..) => format!("{name}/{key}"),
        Profile::Refused(_) => format!("{name}/{key}!"),
    };
    bundle.profiles.iter().map(word).collect()
}

/// The next events, all that come at once.
async fn next(events: &mut LocalBoxStream<'static, Event>) -> Vec<Event> {
    let next = tokio::time::timeout(PATIENCE, events.next()).await;
    let mut all = vec![next.expect("news in time").unwrap()];
    while let Some(Some(event)) = futures::FutureExt::now_or_never(events.next()) {
        all.push(event);
    }
    all
}

#[test]
fn files_are_where_references_say() {
    let scene = Scene::new();
    scene.put("web/a.json", GOOD).put("web/b.json", "{}").put("_team/web/c", GOOD).put("api/.d", GOOD);
    scene.check(&["home=api/.d web/a.json web/b.json!", "team=web/c"]);
}

#[test]
fn what_is_no_bundle_is_told_and_the_rest_is_served() {
    let scene = Scene::new();
    scene.put("web/a", GOOD).put("README.md", "").put("My_Web/a", GOOD).put("_other/web/a", GOOD);
    scene.put(".git/a", GOOD).put("_team/x", "").put("..data/web/z", GOOD);
    symlink("nowhere", scene.path("dangling")).unwrap();
    scene.check(&["home?My_Web README.md _other", "home=dangling/? web/a", "team?_team/x", "team="]);
}

#[test]
fn a_namespace_behind_a_link_that_leads_nowhere_is_not_gone() {
    let scene = Scene::new();
    scene.put("web/a", GOOD).put("../elsewhere/web/a", GOOD);
    symlink("../elsewhere", scene.path("_team")).unwrap();
    let mut directory = scene.open();
    assert_eq!(scene.told(&directory.look()), ["home=web/a", "team=web/a"]);
    fs::rename(scene.path("../elsewhere"), scene.path("../away")).unwrap();
    assert_eq!(scene.told(&directory.look()), [""; 0]);
    fs::rename(scene.path("../away"), scene.path("../elsewhere")).unwrap();
    assert_eq!(scene.told(&directory.look()), [""; 0]);
    fs::remove_file(scene.path("_team")).unwrap();
    assert_eq!(scene.told(&directory.look()), ["team="]);
}

#[test]
fn a_bundle_behind_a_link_that_leads_nowhere_is_not_gone() {
    let scene = Scene::new();
    scene.put("../elsewhere/a", GOOD);
    symlink("../elsewhere", scene.path("web")).unwrap();
    let mut directory = scene.open();
    assert_eq!(scene.told(&directory.look()), ["home=web/a", "team="]);
    fs::rename(scene.path("../elsewhere"), scene.path("../away")).unwrap();
    assert_eq!(scene.told(&directory.look()), ["home=web/?"]);
}

#[test]
fn what_is_no_text_is_refused_and_the_rest_is_served() {
    let scene = Scene::new();
    scene.put("web/a", GOOD).put("web/inner/a", GOOD).put("web/bytes", b"{\xff");
    scene
        .put("web/large", " ".repeat((1 << 20) + 1))
        .put("web/largest", format!("{GOOD}{}", " ".repeat((1 << 20) - GOOD.len())));
    make_fifo(&scene.path("web/fifo"));
    drop(std::os::unix::net::UnixListener::bind(scene.path("web/socket")).unwrap());
    symlink("nowhere", scene.path("web/dangling")).unwrap();
    scene.check(&[
        "home=web/a web/bytes! web/dangling! web/fifo! web/inner! web/large! web/largest web/socket!",
        "team=",
    ]);
}

/// Makes a FIFO, with mkfifo(1).
fn make_fifo(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_diagnostic_says_where_and_what_to_do() {
    let scene = Scene::new();
    scene.put("web/a", b"{\xff");
    let path = scene.path("web/a");
    let diagnostic = no_text(&path, &text::read(&path).unwrap_err());
    let expected =
        format!("error[unreadable] {}: byte 2 is not UTF-8; save it as UTF-8 text", path.display());
    assert_eq!(diagnostic.to_string(), expected);
}

#[test]
fn a_directory_that_can_not_be_read_is_no_source() {
    let name = Namespace::new("home").unwrap();
    let error =
        BundleDirectory::open(Path::new("/nowhere/to"), &name, &BTreeSet::new(), PLATFORM).unwrap_err();
    assert!(error.in_full().contains("listing the bundles in /nowhere/to (see --source)"), "{error:?}");
}

#[test]
fn what_can_not_be_read_is_not_gone() {
    let scene = Scene::new();
    scene.put("web/a", GOOD).put("api/b", GOOD);
    let mut directory = scene.open();
    assert_eq!(scene.told(&directory.look()), ["home=api/b web/a", "team="]);
    // A link to itself can't be read by anybody, not even by root.
    fs::rename(scene.path("web"), scene.path("../web")).unwrap();
    symlink("web", scene.path("web")).unwrap();
    assert_eq!(scene.told(&directory.look()), ["home=api/b web/?"]);
    fs::rename(scene.path(""), scene.path("../away")).unwrap();
    assert_eq!(scene.told(&directory.look()), [""; 0]);
    fs::create_dir(scene.path("")).unwrap();
    assert_eq!(scene.told(&directory.look()), ["home="]);
}

#[test]
fn a_mounted_config_map_is_read_through_its_links() {
    let scene = Scene::new();
    scene.put("web/..2026_01/a", GOOD).put("web/..2026_01/b", GOOD);
    symlink("..2026_01", scene.path("web/..data")).unwrap();
    symlink("..data/a", scene.path("web/a")).unwrap();
    symlink("..data/b", scene.path("web/b")).unwrap();
    scene.check(&["home=web/a web/b", "team="]);
}

#[tokio::test]
async fn changes_are_told_and_nothing_is_told_twice() {
    let scene = Scene::new();
    scene.put("web/a", GOOD);
    let mut events = scene.open().watch().boxed_local();
    assert_eq!(scene.told(&next(&mut events).await), ["home=web/a", "team="]);
    scene.put("web/b", GOOD);
    assert_eq!(scene.told(&next(&mut events).await), ["home=web/a web/b"]);
    fs::write(scene.path("web/a"), "{}").unwrap();
    assert_eq!(scene.told(&next(&mut events).await), ["home=web/a! web/b"]);
    fs::remove_dir_all(scene.path("web")).unwrap();
    while scene.told(&next(&mut events).await) != ["home="] {}
    scene.put("_team/web/a", GOOD);
    while scene.told(&next(&mut events).await) != ["team=web/a"] {}
}

#[tokio::test]
async fn a_directory_behind_a_link_is_watched() {
    let scene = Scene::new();
    scene.put("../elsewhere/a", GOOD);
    symlink("../elsewhere", scene.path("web")).unwrap();
    let mut events = scene.open().watch().boxed_local();
    assert_eq!(scene.told(&next(&mut events).await), ["home=web/a", "team="]);
    scene.put("../elsewhere/b", GOOD);
    assert_eq!(scene.told(&next(&mut events).await), ["home=web/a web/b"]);
}
