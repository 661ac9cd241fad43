//! Loads and removals in a kernel that does as the real one was seen to do, with a real file system.

mod drift;
mod fake;
mod faults;

use futures::{FutureExt, StreamExt};
use profiles::diagnostic::Diagnostic;

use super::load::UNTOLD;
use super::*;
use crate::host::proc::examples::KTHREADD_STAT;
use fake::{Digests, FakeKernel};

struct Scene {
    temporary: tempfile::TempDir,
    kernel: FakeKernel,
    compiler: Digest,
    host: Option<ApparmorHost<FakeKernel>>,
}

impl Scene {
    fn new() -> Self {
        Self::with(Digests::Sha256)
    }

    fn with(digests: Digests) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        fs::create_dir(temporary.path().join("state")).unwrap();
        let scene =
            Self { temporary, kernel: FakeKernel::new(digests), compiler: Digest::of(b"1"), host: None };
        scene.write("proc/2/stat", KTHREADD_STAT);
        scene.write("proc/sys/kernel/random/boot_id", "boot 1\n");
        let mut scene = scene;
        scene.restart();
        scene
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.temporary.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What a crash and the next start come to. Returns what the scan finds.
    fn restart(&mut self) -> BTreeMap<ProfileName, FoundPolicy> {
        self.host = None;
        let host = self.open().unwrap();
        self.host.insert(host).scan(Care::Glance).unwrap()
    }

    fn open(&self) -> Result<ApparmorHost<FakeKernel>> {
        let path = self.temporary.path();
        ApparmorHost::open(self.kernel.clone(), &path.join("state"), path.join("proc"), self.compiler, judge)
    }

    fn reboot(&mut self) {
        self.kernel.reboot();
        self.write("proc/sys/kernel/random/boot_id", "boot 2\n");
    }

    fn host(&mut self) -> &mut ApparmorHost<FakeKernel> {
        self.host.as_mut().unwrap()
    }

    fn keep(&mut self, text: &str) {
        self.host().keep(text, &compile(text), &names(text)).unwrap();
    }

    /// Loads texts, which are stored first. How it ended for each profile: a word, or an error.
    fn load(&mut self, texts: &[&str]) -> Vec<(String, String)> {
        for text in texts {
            self.keep(text);
        }
        self.load_kept(texts)
    }

    fn load_kept(&mut self, texts: &[&str]) -> Vec<(String, String)> {
        let load = |text: &&str| Load { text: digest_of(text), names: names(text) };
        let outcomes = self.host().load(texts.iter().map(load).collect());
        let word = |outcome: Result<Loaded, HostError>| match outcome {
            Ok(Loaded::Ours(_)) => "ours".to_owned(),
            Ok(Loaded::Adopted(_)) => "adopted".to_owned(),
            Ok(Loaded::Foreign(what)) => format!("foreign: {what}"),
            Ok(Loaded::Withheld) => "withheld".to_owned(),
            Err(error) => error.in_full(),
        };
        outcomes.into_iter().map(|(name, outcome)| (name.to_string(), word(outcome))).collect()
    }

    fn unload(&mut self, name: &str) -> Result<Unloaded, HostError> {
        let mut outcomes = self.host().unload(vec![name.parse().unwrap()]);
        outcomes.remove(0).1
    }

    fn scan(&mut self) -> BTreeMap<ProfileName, FoundPolicy> {
        self.host().scan(Care::Glance).unwrap()
    }

    /// What the kernel has of a profile of ours; none if it is not ours.
    fn in_kernel(&mut self, name: &str) -> Option<InKernel> {
        let name: ProfileName = name.parse().unwrap();
        self.scan().get(&name).map(|found| found.kernel)
    }

    fn owns(&mut self, name: &str) -> bool {
        let name: ProfileName = name.parse().unwrap();
        self.host().owns(&name)
    }

    /// The files of the store, of which nobody wants any but the ledger.
    fn stored(&mut self) -> usize {
        self.host().forget(&|_| false);
        self.files()
    }

    /// The files of the store.
    fn files(&self) -> usize {
        fs::read_dir(self.temporary.path().join("state/apparmor")).unwrap().count()
    }
}

/// What stands for compiling: the blob says what the text does.
fn compile(text: &str) -> Vec<u8> {
    format!("blob\n{text}").into_bytes()
}

/// What stands for judging a blob: see [`fake::parse`].
fn judge(
    text: Digest,
    names: &BTreeSet<ProfileName>,
    blob: &[u8],
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut profiles: BTreeMap<ProfileName, Contents> = BTreeMap::new();
    let entries = fake::parse(blob).map_err(|_| Vec::new())?;
    for (name, mode) in &entries {
        if let Ok(name) = name.parse() {
            profiles.insert(name, Contents { mode: *mode, children: BTreeMap::new() });
        }
    }
    for (child, mode) in entries.iter().filter(|(name, _)| name.contains("//")) {
        let parent = child.split("//").next().unwrap().parse().unwrap();
        profiles.get_mut(&parent).unwrap().children.insert(child.clone(), *mode);
    }
    if !profiles.keys().eq(names) {
        return Err(Vec::new());
    }
    Ok((Policy { text, blob: Digest::of(blob), profiles }, Vec::new()))
}

fn digest_of(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn blob_of(text: &str) -> Digest {
    Digest::of(&compile(text))
}

fn names(text: &str) -> BTreeSet<ProfileName> {
    fake::parse(&compile(text)).unwrap().keys().filter_map(|name| name.parse().ok()).collect()
}

/// One outcome for each of these profiles.
fn all(names: &[&str], outcome: &str) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), outcome.to_owned())).collect()
}

const TEXT: &str = "a enforce\na//hat enforce\nb complain\n# 1";
const EDITED: &str = "a enforce\na//hat enforce\nb complain\n# 2";

#[test]
fn a_text_is_loaded_with_one_write_and_found_again() {
    for digests in [Digests::Sha1, Digests::Sha256, Digests::None] {
        let mut scene = Scene::with(digests);
        assert_eq!(scene.load(&[TEXT]), all(&["a", "b"], "ours"));
        assert_eq!(scene.kernel.modes(), "a enforce, a//hat enforce, b complain");
        let found = FoundPolicy {
            text: digest_of(TEXT),
            blob: blob_of(TEXT),
            is_current: true,
            kernel: InKernel::Ours(blob_of(TEXT)),
        };
        for found in [scene.scan(), scene.restart()].map(|it| it.into_values().collect::<Vec<_>>()) {
            assert_eq!(found, [found[0]; 2]);
        }
        assert_eq!(scene.restart().into_values().collect::<Vec<_>>(), [found; 2], "{digests:?}");
        assert_eq!(scene.load_kept(&[TEXT]), all(&["a", "b"], "ours"));
        assert_eq!(scene.kernel.writes(), 1, "{digests:?}");
        assert_eq!(scene.load(&[EDITED]), all(&["a", "b"], "ours"));
        assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(EDITED))));
        assert_eq!((scene.kernel.writes(), scene.stored()), (2, 2), "{digests:?}");
    }
}

#[test]
fn a_batch_is_loaded_with_one_write_each_and_one_of_the_ledger() {
    let mut scene = Scene::new();
    let outcomes = scene.load(&["a enforce", "b enforce", "c enforce"]);
    assert_eq!(outcomes, all(&["a", "b", "c"], "ours"));
    assert_eq!(scene.kernel.writes(), 3);
}

#[test]
fn what_somebody_else_has_is_left_alone_and_the_rest_of_its_text_with_it() {
    let mut scene = Scene::new();
    scene.kernel.plant("b enforce\n# somebody's");
    let outcomes = scene.load(&[TEXT, "c enforce"]);
    assert_eq!(outcomes[0], ("b".to_owned(), format!("foreign: {OTHER_RULES}")));
    assert_eq!(outcomes[1..], [all(&["a"], "withheld"), all(&["c"], "ours")].concat());
    assert_eq!(scene.kernel.modes(), "b enforce, c enforce");
    assert!(!scene.owns("a") && !scene.owns("b"));
    scene.kernel.remove("b").unwrap();
    assert_eq!(scene.load_kept(&[TEXT]), all(&["a", "b"], "ours"));
}

#[test]
fn an_equal_profile_is_adopted_if_the_kernel_tells_that_it_is() {
    for (digests, planted, expected) in [
        (Digests::Sha1, TEXT, "adopted"),
        (Digests::Sha256, TEXT, "adopted"),
        (Digests::None, TEXT, &format!("foreign: {UNTOLD}")),
        (Digests::Sha1, EDITED, &format!("foreign: {OTHER_RULES}")),
        (Digests::Sha256, EDITED, &format!("foreign: {OTHER_RULES}")),
    ] {
        let mut scene = Scene::with(digests);
        scene.kernel.plant(planted);
        assert_eq!(scene.load(&[TEXT]), all(&["a", "b"], expected), "{digests:?}");
        assert_eq!(scene.kernel.writes(), 0);
        assert_eq!(scene.owns("a"), expected == "adopted");
    }
    let mut scene = Scene::new();
    scene.kernel.plant(TEXT);
    scene.kernel.plant("a//hat enforce\n# somebody's");
    let outcomes = scene.load(&[TEXT]);
    assert_eq!(outcomes[0], ("a".to_owned(), format!("foreign: {OTHER_CHILD}")));
}

#[test]
fn what_is_not_stored_as_it_was_compiled_is_not_loaded() {
    let mut scene = Scene::new();
    assert!(scene.load_kept(&[TEXT])[0].1.contains("has to be compiled again"));
    scene.keep(TEXT);
    let load = Load { text: digest_of(TEXT), names: ["a".parse().unwrap()].into() };
    let outcomes = scene.host().load(vec![load]);
    assert!(outcomes[0].1.as_ref().unwrap_err().to_string().contains("declares other profiles"));
    assert!(scene.host().keep(TEXT, &compile("c enforce"), &names(TEXT)).is_err());
    assert_eq!((scene.kernel.writes(), scene.owns("a")), (0, false));
}

#[test]
fn another_compiler_or_kernel_makes_what_is_stored_old_and_leaves_the_text() {
    let changes: [fn(&mut Scene); 2] = [
        |scene| scene.compiler = Digest::of(b"2"),
        |scene| scene.kernel.set_features("capability {0xf\n}\n"),
    ];
    for change in changes {
        let mut scene = Scene::new();
        scene.load(&[TEXT]);
        assert_eq!(scene.host().compiled(digest_of(TEXT)).unwrap().blob, blob_of(TEXT));
        change(&mut scene);
        assert!(scene.restart().values().all(|found| !found.is_current));
        assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(TEXT))));
        assert_eq!(scene.host().compiled(digest_of(TEXT)), None);
        assert_eq!(scene.host().text(digest_of(TEXT)).as_deref(), Some(TEXT));
        assert!(scene.load_kept(&[TEXT])[0].1.contains("has to be compiled again"));
        assert_eq!(scene.load(&[TEXT]), all(&["a", "b"], "ours"));
        assert!(scene.restart().values().all(|found| found.is_current));
        let features = scene.kernel.features().unwrap();
        assert_eq!(scene.host().features(), features);
    }
}

#[test]
fn what_is_stored_and_damaged_is_not_there() {
    type Damage = fn(&[u8]) -> Vec<u8>;
    let damages: [Damage; 5] = [
        |_| Vec::new(),
        |content| content[..content.len() - 1].to_owned(),
        |content| [content, b"x"].concat(),
        |content| content.iter().map(|byte| byte ^ 1).collect(),
        |content| content.iter().copied().filter(|byte| *byte != b'\n').collect(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut scene = Scene::new();
        scene.load(&[TEXT]);
        for ending in ["text", "blob"] {
            let path = scene.temporary.path().join(format!("state/apparmor/{}.{ending}", digest_of(TEXT)));
            let content = fs::read(&path).unwrap();
            fs::write(&path, damage(&content)).unwrap();
        }
        for is_restarted in [false, true] {
            if is_restarted {
                assert!(scene.restart().values().all(|found| !found.is_current), "{number}");
            }
            assert_eq!(scene.host().compiled(digest_of(TEXT)), None, "{number}");
            assert_eq!(scene.host().text(digest_of(TEXT)), None, "{number}");
        }
        assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(TEXT))), "{number}");
        assert_eq!(scene.load(&[TEXT]), all(&["a", "b"], "ours"));
        assert_eq!(scene.host().text(digest_of(TEXT)).as_deref(), Some(TEXT));
    }
}

#[test]
fn what_nothing_refers_to_is_swept_at_the_next_start_and_not_before() {
    let mut scene = Scene::new();
    scene.keep("c enforce");
    scene.load(&[TEXT]);
    scene.write("state/apparmor/~pavise0", "left over");
    scene.write("state/apparmor/stray", "");
    assert!(scene.host().compiled(digest_of("c enforce")).is_some());
    scene.restart();
    assert_eq!(scene.host().compiled(digest_of("c enforce")), None);
    assert_eq!(scene.files(), 2);
    assert!(scene.host().compiled(digest_of(TEXT)).is_some());
    assert_eq!(scene.stored(), 2);
    assert_eq!(scene.unload("a").unwrap(), Unloaded::Removed);
    assert_eq!(scene.stored(), 2);
    assert_eq!(scene.unload("b").unwrap(), Unloaded::Removed);
    assert_eq!(scene.stored(), 0);
}

#[test]
fn a_blob_that_the_disk_loses_while_the_agent_runs_is_to_be_compiled_again() {
    let mut scene = Scene::new();
    scene.load(&[TEXT]);
    scene.write(&format!("state/apparmor/{}.blob", digest_of(TEXT)), "damaged");
    assert!(scene.scan().values().all(|found| found.is_current), "nobody has looked yet");
    scene.kernel.reboot();
    assert!(scene.load_kept(&[TEXT])[0].1.contains("it has to be compiled again"));
    assert!(scene.scan().values().all(|found| !found.is_current));
    assert_eq!(scene.load(&[TEXT]), all(&["a", "b"], "ours"));
}

#[test]
fn what_comes_to_nothing_is_forgotten_when_nobody_wants_it_any_more() {
    let mut scene = Scene::new();
    scene.kernel.plant("d enforce");
    assert_ne!(scene.load(&["d kill"]), all(&["d"], "ours"));
    scene.load(&[TEXT]);
    scene.host().forget(&|text| text == digest_of("d kill"));
    assert_eq!(scene.files(), 4);
    // What the disk lost of it is none the less forgotten.
    fs::remove_file(scene.temporary.path().join(format!("state/apparmor/{}.blob", digest_of("d kill"))))
        .unwrap();
    scene.host().forget(&|_| false);
    assert_eq!(scene.files(), 2);
    assert!(scene.host().compiled(digest_of(TEXT)).is_some());
}

#[test]
fn a_profile_is_removed_once_no_process_runs_under_it() {
    let mut scene = Scene::new();
    scene.load(&[TEXT]);
    scene.write("proc/7/task/9/attr/apparmor/current", "a//hat (enforce)\n");
    assert!(matches!(scene.unload("a").unwrap(), Unloaded::InUse(why) if why.contains("process 7")));
    assert!(matches!(scene.in_kernel("a"), Some(InKernel::Ours(_))));
    fs::remove_dir_all(scene.temporary.path().join("proc/7")).unwrap();
    fs::remove_file(scene.temporary.path().join("proc/2/stat")).unwrap();
    assert!(matches!(scene.unload("a").unwrap(), Unloaded::InUse(why) if why.contains("--proc")));
    scene.write("proc/2/stat", KTHREADD_STAT);
    assert_eq!(scene.unload("a").unwrap(), Unloaded::Removed);
    assert_eq!(scene.kernel.modes(), "b complain");
    assert!(!scene.owns("a") && scene.owns("b"));
}

#[test]
fn a_removal_leaves_what_is_not_ours_and_gives_up_what_is_not_any_more() {
    let mut scene = Scene::new();
    scene.kernel.plant("c enforce");
    assert_eq!(scene.unload("c").unwrap(), Unloaded::Removed);
    scene.load(&[TEXT]);
    scene.kernel.plant("a enforce\n# somebody's");
    assert_eq!(scene.unload("a").unwrap(), Unloaded::Removed);
    scene.kernel.remove("b").unwrap();
    assert_eq!(scene.unload("b").unwrap(), Unloaded::Removed);
    assert_eq!(scene.kernel.modes(), "a enforce, a//hat enforce, c enforce");
    assert!(!scene.owns("a") && !scene.owns("b"));
}

#[test]
fn a_child_that_a_new_text_has_no_more_is_removed_unless_a_process_is_in_it() {
    let without = "a enforce\nb complain\n# 2";
    let mut scene = Scene::new();
    scene.load(&[TEXT]);
    scene.load(&[without]);
    assert_eq!(scene.kernel.modes(), "a enforce, b complain");
    scene.load(&[TEXT]);
    scene.write("proc/7/task/9/attr/apparmor/current", "a//hat (enforce)\n");
    assert_eq!(scene.load(&[without]), all(&["a", "b"], "ours"));
    assert_eq!(scene.kernel.modes(), "a enforce, a//hat enforce, b complain");
    assert_eq!(scene.in_kernel("a"), Some(InKernel::Ours(blob_of(without))));
}

#[test]
fn a_glance_after_which_nothing_changed_looks_at_nothing() {
    let mut scene = Scene::new();
    scene.load(&[TEXT]);
    let found = scene.scan();
    let looks = scene.kernel.looks();
    assert_eq!(scene.scan(), found);
    assert_eq!(scene.kernel.looks(), looks);
    scene.host().scan(Care::Read).unwrap();
    assert_eq!(scene.kernel.looks(), looks + 1);
    assert_eq!(scene.host().changes().next().now_or_never(), None);
    scene.kernel.plant("c enforce");
    assert_eq!(scene.host().changes().next().now_or_never(), Some(Some(())));
    assert_eq!(scene.scan(), found);
    assert_eq!(scene.kernel.looks(), looks + 2);
}

#[test]
fn a_ledger_that_can_not_be_read_is_refused_and_kept() {
    for (text, expected) in
        [("{", "damaged"), (r#"{"version":2}"#, "newer agent"), ("{\"version\":1}", "damaged")]
    {
        let scene = Scene::new();
        scene.write("state/apparmor.json", text);
        let error = format!("{:#}", scene.open().unwrap_err());
        assert!(error.contains(expected) && error.contains("apparmor.json"), "{error}");
        let path = scene.temporary.path().join("state/apparmor.json");
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }
}
