//! AppArmor in the loop: a kernel in memory, and a compiler that answers what it is told to.

use anyhow::anyhow;
use futures::stream::BoxStream;
use profiles::apparmor::kernel::{FoundPolicy, InKernel, Load};
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::{Mode, Policy};
use profiles::sight::PolicySight;

use super::*;
use crate::compiler::{Answer, Limit};
use crate::examples::{apparmor_source, pod_with_apparmor};
use crate::host::apparmor::{Loaded, PolicyHost, PolicyOutcomes, Unloaded};

/// Two profiles, `one` and `two`, and what the parser made of them.
const TEXT: &str = include_str!("../../../../profiles/src/apparmor/texts/two.profile");
const BLOB: &[u8] = include_bytes!("../../../../profiles/src/apparmor/texts/two.3.0.blob");
/// What another parser made of it.
const OTHER_BLOB: &[u8] = include_bytes!("../../../../profiles/src/apparmor/texts/two.5.4.blob");

/// The kernel, the store, and the compiler.
#[derive(Debug, Default)]
struct Node {
    done: Vec<String>,
    /// What was stored, by the digest of the text.
    stored: BTreeMap<Digest, Policy>,
    /// What the ledger has, and what the kernel has of it.
    owned: BTreeMap<ProfileName, FoundPolicy>,
    foreign: BTreeSet<ProfileName>,
    failing_stores: u32,
    /// So many are lost again right after.
    losing_stores: u32,
    failing_loads: u32,
    used: BTreeSet<ProfileName>,
    /// The compiler's next answers; with none left, it compiles.
    answers: Vec<Result<Answer>>,
    /// How long the compiler takes.
    pause: Duration,
    /// How many texts it works on, and how many it ever did at a time.
    asked: (usize, usize),
}

type SharedNode = Rc<RefCell<Node>>;

struct FakePolicies(SharedNode);

fn full(attempted: &'static str) -> HostError {
    HostError::new(attempted, Path::new("/x"), std::io::Error::from(std::io::ErrorKind::StorageFull))
}

impl PolicyHost for FakePolicies {
    fn scan(&mut self, _: Care) -> Result<BTreeMap<ProfileName, FoundPolicy>, HostError> {
        Ok(self.0.borrow().owned.clone())
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        stream::pending().boxed()
    }

    fn features(&self) -> &'static str {
        ""
    }

    fn compiled(&self, text: Digest) -> Option<Policy> {
        self.0.borrow().stored.get(&text).cloned()
    }

    fn text(&self, _: Digest) -> Option<String> {
        None
    }

    fn keep(&mut self, text: &str, blob: &[u8], names: &BTreeSet<ProfileName>) -> Result<(), HostError> {
        let mut node = self.0.borrow_mut();
        if node.failing_stores > 0 {
            node.failing_stores -= 1;
            return Err(full("writing"));
        }
        let text = Digest::of(text.as_bytes());
        let (policy, _) = profiles::apparmor::judge(text, names, blob).unwrap();
        node.done.push("keep".to_owned());
        if node.losing_stores > 0 {
            node.losing_stores -= 1;
            return Ok(());
        }
        node.stored.insert(text, policy);
        Ok(())
    }

    fn forget(&mut self, wanted: &dyn Fn(Digest) -> bool) {
        let mut node = self.0.borrow_mut();
        let owned: BTreeSet<Digest> = node.owned.values().map(|found| found.text).collect();
        node.stored.retain(|text, _| wanted(*text) || owned.contains(text));
    }

    fn load(&mut self, batch: Vec<Load>) -> PolicyOutcomes<Loaded> {
        let mut node = self.0.borrow_mut();
        let mut outcomes = PolicyOutcomes::new();
        for Load { text, names } in batch {
            let Some(blob) = node.stored.get(&text).map(|policy| policy.blob) else {
                outcomes.extend(names.into_iter().map(|name| (name, Err(full("reading")))));
                continue;
            };
            if node.failing_loads > 0 {
                node.failing_loads -= 1;
                outcomes.extend(names.into_iter().map(|name| (name, Err(full("loading")))));
                continue;
            }
            for name in names {
                if node.foreign.contains(&name) {
                    outcomes.push((name, Ok(Loaded::Foreign("a profile with other rules"))));
                    continue;
                }
                node.done.push(format!("load {name}"));
                let found = FoundPolicy { text, blob, is_current: true, kernel: InKernel::Ours(blob) };
                node.owned.insert(name.clone(), found);
                outcomes.push((name, Ok(Loaded::Ours(blob))));
            }
        }
        outcomes
    }

    fn owns(&self, name: &ProfileName) -> bool {
        self.0.borrow().owned.contains_key(name)
    }

    fn look(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, PolicySight>, HostError> {
        let node = self.0.borrow();
        let sight = |name: &ProfileName| {
            let is_there = node.owned.contains_key(name) || node.foreign.contains(name);
            if is_there { PolicySight::Present(Some(Mode::Enforce)) } else { PolicySight::Absent }
        };
        Ok(names.iter().map(|name| (name.clone(), sight(name))).collect())
    }

    fn unload(&mut self, batch: Vec<ProfileName>) -> PolicyOutcomes<Unloaded> {
        let mut node = self.0.borrow_mut();
        let mut unload = |name: ProfileName| {
            if node.used.contains(&name) {
                return (name, Ok(Unloaded::InUse("process 7 runs under it".to_owned())));
            }
            node.done.push(format!("unload {name}"));
            node.owned.remove(&name);
            (name, Ok(Unloaded::Removed))
        };
        batch.into_iter().map(&mut unload).collect()
    }
}

/// One text that the compiler works on, until somebody hangs up.
struct Asked(SharedNode);

impl Asked {
    fn new(node: SharedNode) -> Self {
        let (now, most) = node.borrow().asked;
        node.borrow_mut().asked = (now + 1, most.max(now + 1));
        Self(node)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.borrow_mut().asked.0 -= 1;
    }
}

async fn compile(node: SharedNode) -> Result<Answer> {
    let pause = node.borrow().pause;
    let _asked = Asked::new(node.clone());
    tokio::time::sleep(pause).await;
    let mut node = node.borrow_mut();
    node.done.push("compile".to_owned());
    if node.answers.is_empty() { Ok(compiled(BLOB)) } else { node.answers.remove(0) }
}

fn compiled(blob: &[u8]) -> Answer {
    Answer::Compiled { blob: blob.to_vec(), stderr: String::new() }
}

fn apparmor(name: &str, text: &str) -> Event {
    Event::Applied(judged(apparmor_source("home", name, &[("a", text)])))
}

/// Runs the loop on `node` while `script` feeds it events; labels count as done. Returns all that was done.
async fn play<F>(node: Node, script: impl FnOnce(UnboundedSender<Event>, SharedNode) -> F) -> Vec<String>
where
    F: Future<Output = ()>,
{
    let node = Rc::new(RefCell::new(node));
    let (sender, events) = unbounded();
    let world = Rc::new(RefCell::new(World::default()));
    let (api_server, log) = (world.clone(), node.clone());
    let write_node = move |write: NodeWrite| {
        let NodeWrite::Labels(change) = write else { panic!("{write:?} of a Node without taints") };
        let labels = change.set.iter().map(|label| format!("+{label}"));
        let labels = labels.chain(change.unset.iter().map(|label| format!("-{label}")));
        log.borrow_mut().done.push(labels.collect::<Vec<_>>().join(" "));
        patch(api_server.clone(), NodeWrite::Labels(change)).boxed_local()
    };
    let compiler = node.clone();
    let ask = Box::new(move |_| compile(compiler.clone()).boxed_local());
    let policies = Policies::new(Box::new(FakePolicies(node.clone())), ask, 2);
    let rules = Config { apparmor: AppArmor::Enabled, ..rules() };
    let sync = SyncLoop::new(
        FakeHost(world),
        Some(policies),
        rules,
        vec![events.boxed_local()],
        stream::pending(),
        write_node,
        Arc::new(Status::new()),
    );
    send(&sender, Event::NodeLabels(NodeLabels::default()));
    send(&sender, Event::PodsListed(BTreeMap::new()));
    send(&sender, Event::Listed { namespace: Namespace::new("home").unwrap(), bundles: Vec::new() });
    sync.run(script(sender, node.clone())).await.unwrap();
    node.take().done
}

const LABELS: &str = "+apparmor.pavise.dev/one +apparmor.pavise.dev/two +bundle.pavise.dev/b";

#[tokio::test(start_paused = true)]
async fn a_text_is_compiled_kept_loaded_and_labelled_in_this_order() {
    let done = play(Node::default(), async |sender, _| {
        send(&sender, apparmor("b", TEXT));
        seconds(1).await;
    })
    .await;
    assert_eq!(done, ["compile", "keep", "load one", "load two", LABELS]);
}

#[tokio::test(start_paused = true)]
async fn what_was_compiled_before_is_not_compiled_again() {
    let digest = Digest::of(TEXT.as_bytes());
    let names: BTreeSet<ProfileName> = ["one", "two"].map(|name| name.parse().unwrap()).into();
    let (policy, _) = profiles::apparmor::judge(digest, &names, BLOB).unwrap();
    let found = FoundPolicy { text: digest, blob: policy.blob, is_current: true, kernel: InKernel::Absent };
    let owned = names.into_iter().map(|name| (name, found)).collect();
    let node = Node { stored: [(digest, policy)].into(), owned, ..Node::default() };
    let done = play(node, async |sender, _| {
        send(&sender, apparmor("b", TEXT));
        seconds(1).await;
    })
    .await;
    assert_eq!(done, ["load one", "load two", LABELS]);
}

#[tokio::test(start_paused = true)]
async fn seccomp_profiles_do_not_wait_for_the_compiler() {
    let node = Node { pause: Duration::from_mins(1), ..Node::default() };
    let done = play(node, async |sender, node| {
        send(&sender, apparmor("b", TEXT));
        send(&sender, Event::Applied(bundle("x")));
        seconds(1).await;
        assert_eq!(node.borrow().done, ["+bundle.pavise.dev/x +seccomp.pavise.dev/x_a"]);
        seconds(60).await;
    })
    .await;
    assert_eq!(done[1..], ["compile", "keep", "load one", "load two", LABELS]);
}

#[tokio::test(start_paused = true)]
async fn a_compiler_that_does_not_answer_and_a_full_disk_are_tried_again() {
    let answers = vec![Err(anyhow!("it crashed")), Err(anyhow!("it hangs"))];
    let node = Node { answers, failing_stores: 1, failing_loads: 1, ..Node::default() };
    let done = play(node, async |sender, _| {
        send(&sender, apparmor("b", TEXT));
        seconds(300).await;
    })
    .await;
    assert_eq!(done, ["compile", "compile", "compile", "compile", "keep", "load one", "load two", LABELS]);
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_loses_before_it_was_ever_loaded_is_compiled_again() {
    let done = play(Node { losing_stores: 2, ..Node::default() }, async |sender, _| {
        send(&sender, apparmor("b", TEXT));
        seconds(300).await;
    })
    .await;
    let kept = ["compile", "keep"];
    assert_eq!(done, [&kept[..], &kept, &kept, &["load one", "load two", LABELS]].concat());
}

#[tokio::test(start_paused = true)]
async fn what_the_text_is_to_blame_for_is_not_tried_again() {
    let refused = Answer::Refused { stderr: "AppArmor parser error at line 1: syntax error".to_owned() };
    for answer in [
        refused,
        compiled(b""),
        compiled(&BLOB[..99]),
        Answer::Limit(Limit::Time),
        Answer::Limit(Limit::Memory),
        Answer::Limit(Limit::Size),
        Answer::Crashed,
    ] {
        let node = Node { answers: vec![Ok(answer.clone())], ..Node::default() };
        let done = play(node, async |sender, _| {
            send(&sender, apparmor("b", TEXT));
            seconds(3600).await;
        })
        .await;
        assert_eq!(done, ["compile"], "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_of_another_text_is_never_kept_nor_loaded() {
    // A compiler that lies: it answers with the policy of another text.
    let text = TEXT.replace("one", "three");
    let done = play(Node::default(), async |sender, _| {
        send(&sender, apparmor("b", &text));
        seconds(3600).await;
    })
    .await;
    assert_eq!(done, ["compile"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_text_that_nobody_wants_any_more_loads_nothing() {
    let node = Node { pause: Duration::from_secs(10), ..Node::default() };
    let done = play(node, async |sender, _| {
        send(&sender, apparmor("b", TEXT));
        seconds(1).await;
        send(&sender, Event::Deleted(BundleId::new("home", "b").unwrap()));
        seconds(600).await;
    })
    .await;
    assert!(!done.iter().any(|one| one.starts_with("load")), "{done:?}");
}

#[tokio::test(start_paused = true)]
async fn a_profile_goes_after_its_label_and_not_while_it_is_used() {
    let done = play(Node::default(), async |sender, node| {
        send(&sender, apparmor("b", TEXT));
        seconds(1).await;
        let pod = PodId { namespace: "ns".to_owned(), name: "p".to_owned(), uid: "u".to_owned() };
        send(&sender, Event::PodApplied(pod.clone(), pod_with_apparmor("one")));
        send(&sender, Event::Deleted(BundleId::new("home", "b").unwrap()));
        seconds(301).await;
        assert!(node.borrow().done.contains(&"unload two".to_owned()));
        assert!(!node.borrow().done.iter().any(|one| one.contains("-apparmor.pavise.dev/one")));
        node.borrow_mut().used.insert("one".parse().unwrap());
        send(&sender, Event::PodDeleted(pod));
        seconds(60).await;
        assert!(!node.borrow().done.contains(&"unload one".to_owned()), "a process runs under it");
        node.borrow_mut().used.clear();
        seconds(11).await;
    })
    .await;
    let at = |what: &str| done.iter().position(|one| one.contains(what)).unwrap();
    assert!(at("-apparmor.pavise.dev/two") < at("unload two"), "{done:?}");
    assert!(at("-apparmor.pavise.dev/one") < at("unload one"), "{done:?}");
}

/// A version of [`TEXT`].
fn version(number: u32) -> String {
    format!("{TEXT}# {number}\n")
}

#[tokio::test(start_paused = true)]
async fn of_a_text_that_is_edited_all_the_time_only_the_last_version_is_compiled() {
    let node = Node { pause: Duration::from_secs(30), ..Node::default() };
    let done = play(node, async |sender, node| {
        for number in 0..60 {
            send(&sender, apparmor("b", &version(number)));
            seconds(1).await;
            assert_eq!(node.borrow().asked.0, 1, "version {number}");
        }
        seconds(30).await;
    })
    .await;
    assert_eq!(done, ["compile", "keep", "load one", "load two", LABELS]);
}

#[tokio::test(start_paused = true)]
async fn what_is_neither_loaded_nor_wanted_does_not_stay_in_the_store() {
    let foreign = ["one", "two"].map(|name| name.parse().unwrap()).into();
    play(Node { foreign, ..Node::default() }, async |sender, node| {
        for number in 0..9 {
            send(&sender, apparmor("b", &version(number)));
            seconds(1).await;
            let stored: Vec<Digest> = node.borrow().stored.keys().copied().collect();
            assert_eq!(stored, [Digest::of(version(number).as_bytes())]);
        }
        send(&sender, Event::Deleted(BundleId::new("home", "b").unwrap()));
        seconds(1).await;
        assert!(node.borrow().stored.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_text_that_comes_back_right_after_it_was_replaced_is_loaded_again() {
    let answers = [BLOB, OTHER_BLOB, BLOB].map(|blob| Ok(compiled(blob))).into();
    let done = play(Node { answers, ..Node::default() }, async |sender, _| {
        for number in [1, 2, 1] {
            send(&sender, apparmor("b", &version(number)));
            seconds(1).await;
        }
        seconds(600).await;
    })
    .await;
    let first = ["compile", "keep", "load one", "load two"];
    assert_eq!(done, [&first[..], &[LABELS], &first, &first[2..]].concat());
}

#[tokio::test(start_paused = true)]
async fn texts_that_take_long_do_not_hold_up_those_of_other_bundles() {
    let answers = (0..100).map(|_| Ok(Answer::Limit(Limit::Time))).collect();
    let node = Node { pause: Duration::from_secs(30), answers, ..Node::default() };
    play(node, async |sender, node| {
        let texts =
            (0..100).map(|number| (format!("k{number}"), format!("profile p{number} {{\n  file,\n}}\n")));
        let texts: Vec<(String, String)> = texts.collect();
        let texts: Vec<(&str, &str)> =
            texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        send(&sender, Event::Applied(judged(apparmor_source("home", "slow", &texts))));
        seconds(301).await;
        assert_eq!(node.borrow().answers.len(), 80, "two each 30 seconds");
        send(&sender, apparmor("b", TEXT));
        seconds(30).await;
        node.borrow_mut().answers.clear();
        seconds(30).await;
        assert!(node.borrow().done.contains(&"load one".to_owned()), "{:?}", node.borrow().done);
        assert_eq!(node.borrow().asked, (2, 2));
    })
    .await;
}
