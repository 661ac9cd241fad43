//! The loop with a host that fails on demand, and paused time.

mod policies;
mod reporting;
mod shown;
mod taint;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use profiles::bundle::{Bundle, BundleId, Document};
use profiles::digest::Digest;
use profiles::label::LABEL_VALUE;
use profiles::name::{Namespace, NodeName};
use profiles::plan::Install;
use profiles::platform::AppArmor;
use profiles::pod::{Asked, Container, ContainerId, ContainerKind, Pod, PodId};
use profiles::reference::Reference;
use profiles::sight::{Confinement, FileSight, Inspect, SeccompPath};
use profiles::state::{Found, NodeLabels};

use super::*;
use crate::examples::{judged, source};
use crate::host::error::HostError;
use crate::host::lock::Lock;
use crate::host::{Care, NodeHost, Outcomes};

/// All that was done outside, in order, and what is to fail.
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that can be wrong, with any others")]
#[derive(Debug, Default)]
struct World {
    done: Vec<String>,
    failing_installs: u32,
    /// Whether the ledger keeps what was to be installed and was not.
    is_intent_kept: bool,
    failing_patches: u32,
    /// Patches are answered only when this is lifted.
    is_api_server_stuck: bool,
    labels: BTreeSet<String>,
    startup_taints: BTreeSet<usize>,
    version: u64,
    disk: BTreeMap<Reference, Found>,
    scans: Vec<Care>,
    /// Tells the loop that the disk changed.
    changes: Option<UnboundedSender<()>>,
    is_unwatched: bool,
    is_out_of_reach: bool,
    /// What the loop shows.
    status: Option<Arc<Status>>,
}

impl World {
    /// Has the loop find this at `reference`.
    fn drift(&mut self, reference: &str, found: Found) {
        self.disk.insert(reference.parse().unwrap(), found);
        self.tell();
    }

    fn tell(&self) {
        if let Some(changes) = &self.changes {
            changes.unbounded_send(()).unwrap();
        }
    }
}

type Shared = Rc<RefCell<World>>;

struct FakeHost(Shared);

impl Host for FakeHost {
    fn scan(&mut self, care: Care) -> Result<BTreeMap<Reference, Found>, HostError> {
        let mut world = self.0.borrow_mut();
        world.scans.push(care);
        if world.is_out_of_reach {
            return Err(HostError::new("using", Path::new("/x"), std::io::Error::other("gone")));
        }
        Ok(world.disk.clone())
    }

    fn is_watching(&self) -> bool {
        !self.0.borrow().is_unwatched
    }

    fn install(&mut self, batch: Vec<Install>) -> Outcomes<Installed> {
        let mut world = self.0.borrow_mut();
        let install = |Install { reference, document }| {
            if world.failing_installs > 0 {
                world.failing_installs -= 1;
                if world.is_intent_kept {
                    world.disk.entry(reference.clone()).or_insert(Found::Absent);
                }
                let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return (reference, Err(HostError::new("writing", Path::new("/x"), error)));
            }
            world.done.push(format!("install {reference}"));
            world.disk.insert(reference.clone(), Found::Ours(document.digest()));
            world.tell();
            (reference, Ok(Installed::Written(document.digest())))
        };
        batch.into_iter().map(install).collect()
    }

    fn content(&self, _: &Reference, digest: Digest) -> Option<Document> {
        // All profiles of these tests have the same content.
        Document::kept(CONTENT.into(), digest)
    }

    fn owns(&self, _: &Reference) -> bool {
        self.0.borrow().is_intent_kept
    }

    fn look(&mut self, places: &BTreeSet<SeccompPath>) -> BTreeMap<SeccompPath, FileSight> {
        self.0.borrow_mut().done.extend(places.iter().map(|place| format!("look {place}")));
        // Of these, nothing can be told.
        BTreeMap::new()
    }

    fn inspect(&mut self, containers: &BTreeSet<Inspect>) -> BTreeMap<ContainerId, Option<Confinement>> {
        containers.iter().map(|container| (container.id.clone(), None)).collect()
    }

    fn remove(&mut self, batch: Vec<Reference>) -> Outcomes<()> {
        let mut world = self.0.borrow_mut();
        world.disk.retain(|reference, _| !batch.contains(reference));
        world.done.extend(batch.iter().map(|reference| format!("remove {reference}")));
        batch.into_iter().map(|reference| (reference, Ok(()))).collect()
    }
}

async fn patch(world: Shared, write: NodeWrite) -> Vec<Event> {
    while world.borrow().is_api_server_stuck {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut world = world.borrow_mut();
    if world.failing_patches > 0 {
        world.failing_patches -= 1;
        return vec![match write {
            NodeWrite::Labels(_) => Event::LabelsFailed,
            NodeWrite::Untaint(_) => Event::UntaintFailed,
        }];
    }
    let change = match write {
        NodeWrite::Labels(change) => change,
        NodeWrite::Untaint(untaint) => {
            world.done.push(format!("untaint {:?}", untaint.lacks));
            world.startup_taints.clear();
            world.version += 1;
            return vec![Event::Untainted(seen(&world))];
        }
    };
    world.done.push(format!("labels +{} -{}", change.set.len(), change.unset.len()));
    world.labels.extend(change.set.iter().map(ToString::to_string));
    world.labels.retain(|label| change.unset.iter().all(|unset| unset.as_str() != label));
    world.version += 1;
    vec![Event::LabelsWritten(seen(&world))]
}

fn seen(world: &World) -> NodeLabels {
    let labels = world.labels.iter().filter_map(|label| profiles::label::LabelKey::observed(label));
    NodeLabels {
        version: Some(world.version),
        labels: labels.map(|label| (label, LABEL_VALUE.to_owned())).collect(),
        startup_taints: world.startup_taints.clone(),
        ..NodeLabels::default()
    }
}

const CONTENT: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

fn bundle(name: &str) -> Bundle {
    with_content(name, CONTENT)
}

fn with_content(name: &str, content: &str) -> Bundle {
    judged(source("home", name, &[("a", content)]))
}

fn listed(names: &[&str]) -> Event {
    let bundles = names.iter().map(|name| bundle(name)).collect();
    Event::Listed { namespace: Namespace::new("home").unwrap(), bundles }
}

fn rules() -> Config {
    Config {
        home: Namespace::new("home").unwrap(),
        others: BTreeSet::new(),
        removal_delay: Duration::from_mins(5),
        node: Some(NodeName::new("node1").unwrap()),
        apparmor: AppArmor::Disabled,
    }
}

/// Runs the loop in `world`, on a node without pods, while `script` feeds it events. Returns all that was
/// done.
async fn play<F>(world: World, script: impl FnOnce(UnboundedSender<Event>, Shared) -> F) -> Vec<String>
where
    F: Future<Output = ()>,
{
    let (world, outcome) = play_to_the_end(world, script).await;
    outcome.unwrap();
    world.done
}

/// Runs the loop once in `world`, fed with `events`. Returns all that was done, and how the loop ended; none
/// if it had not after a minute.
async fn play_once(world: World, events: Vec<Event>) -> (Vec<String>, Option<bool>) {
    let shared = Rc::new(RefCell::new(world));
    let api_server = shared.clone();
    let write_node = move |write| patch(api_server.clone(), write).boxed_local();
    let no_pods = Event::PodsListed(BTreeMap::new());
    let events = stream::iter([no_pods]).chain(stream::iter(events)).chain(stream::pending()).boxed_local();
    let host = FakeHost(shared.clone());
    let status = Arc::new(Status::new());
    let sync = SyncLoop::new(host, None, rules(), vec![events], stream::pending(), write_node, status);
    let outcome = sync.run_once(seconds(60)).await.unwrap();
    (shared.take().done, outcome)
}

/// The same. Returns the world as it is then, and how the loop ended.
async fn play_to_the_end<F>(
    mut world: World,
    script: impl FnOnce(UnboundedSender<Event>, Shared) -> F,
) -> (World, Result<()>)
where
    F: Future<Output = ()>,
{
    let (tell, changes) = unbounded();
    let status = Arc::new(Status::new());
    world.changes = Some(tell);
    world.status = Some(status.clone());
    let shared = Rc::new(RefCell::new(world));
    let (sender, events) = unbounded();
    send(&sender, Event::PodsListed(BTreeMap::new()));
    let api_server = shared.clone();
    let write_node = move |write| patch(api_server.clone(), write).boxed_local();
    let events = vec![events.boxed_local()];
    let sync = SyncLoop::new(FakeHost(shared.clone()), None, rules(), events, changes, write_node, status);
    let outcome = sync.run(script(sender, shared.clone())).await;
    (shared.take(), outcome)
}

fn send(sender: &UnboundedSender<Event>, event: Event) {
    sender.unbounded_send(event).unwrap();
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn all_that_comes_at_once_is_one_change_of_labels() {
    let done = play(World::default(), async |sender, _| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&[]));
        (0..100).for_each(|number| send(&sender, Event::Applied(bundle(&format!("b{number}")))));
        seconds(10).await;
    })
    .await;
    assert_eq!(done.len(), 101);
    assert_eq!(done.last().unwrap(), "labels +200 -0");
}

#[tokio::test(start_paused = true)]
async fn what_pods_refer_to_is_looked_at_once_after_each_scan() {
    let container = |reference: &str| Container {
        name: reference.to_owned(),
        kind: ContainerKind::Regular,
        is_privileged: false,
        seccomp: Asked::Localhost(reference.to_owned()),
        apparmor: Asked::Nothing,
        running: None,
    };
    let pod = Pod { containers: ["x/a", "y/b", "z"].map(container).into(), ..Pod::default() };
    let id = PodId { namespace: "ns".to_owned(), name: "p".to_owned(), uid: "u".to_owned() };
    let done = play(World::default(), async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        world.borrow_mut().done.clear();
        send(&sender, Event::PodsListed([(id.clone(), pod)].into()));
        seconds(60).await;
        assert_eq!(world.borrow().done, ["look y/b", "look z"], "what is ours is not looked at");
        world.borrow().tell();
        seconds(60).await;
        assert_eq!(world.borrow().done[2..], ["look y/b", "look z"]);
        send(&sender, Event::PodDeleted(id));
        world.borrow().tell();
        seconds(60).await;
    })
    .await;
    assert_eq!(done.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_disk_does_not_wait_for_the_api_server() {
    let world = World { is_api_server_stuck: true, ..World::default() };
    let done = play(world, async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        send(&sender, Event::Applied(bundle("y")));
        seconds(1).await;
        assert_eq!(world.borrow().done, ["install x/a", "install y/a"]);
        world.borrow_mut().is_api_server_stuck = false;
        seconds(1).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "install y/a", "labels +2 -0", "labels +2 -0"]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again() {
    let world = World { failing_installs: 2, failing_patches: 2, ..World::default() };
    let done = play(world, async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(2).await;
        assert!(world.borrow().done.is_empty(), "one second, then two");
        seconds(10).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "labels +2 -0"]);
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_cleared_away_only_if_the_ledger_has_it() {
    for (is_intent_kept, expected) in [(false, &[][..]), (true, &["remove x/a"])] {
        let world = World { failing_installs: 9, is_intent_kept, ..World::default() };
        let done = play(world, async |sender, _| {
            send(&sender, Event::NodeLabels(NodeLabels::default()));
            send(&sender, listed(&["x"]));
            seconds(1).await;
            send(&sender, listed(&[]));
            seconds(301).await;
        })
        .await;
        assert_eq!(done, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_goes_after_the_delay_and_after_its_label() {
    let done = play(World::default(), async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        send(&sender, Event::Deleted(BundleId::new("home", "x").unwrap()));
        seconds(299).await;
        assert_eq!(world.borrow().done.len(), 2);
        seconds(2).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "labels +2 -0", "labels +0 -2", "remove x/a"]);
}

#[tokio::test(start_paused = true)]
async fn stopping_changes_nothing() {
    let done = play(World::default(), async |sender, _| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        send(&sender, listed(&[]));
    })
    .await;
    assert_eq!(done, ["install x/a", "labels +2 -0"]);
}

#[tokio::test(start_paused = true)]
async fn a_drift_is_repaired_without_a_change_of_labels() {
    for drift in [Found::Absent, Found::Changed("other content"), Found::NotAFile("a FIFO")] {
        let done = play(World::default(), async |sender, world| {
            send(&sender, Event::NodeLabels(NodeLabels::default()));
            send(&sender, listed(&["x"]));
            seconds(2).await;
            world.borrow_mut().drift("x/a", drift);
            seconds(2).await;
            assert!(matches!(world.borrow().disk.values().next(), Some(Found::Ours(_))));
        })
        .await;
        assert_eq!(done, ["install x/a", "labels +2 -0", "install x/a"], "{drift:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drift_is_repaired_while_the_api_server_is_away() {
    let world = World { is_api_server_stuck: true, ..World::default() };
    let done = play(world, async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        world.borrow_mut().drift("x/a", Found::Absent);
        seconds(1).await;
        assert_eq!(world.borrow().done, ["install x/a", "install x/a"]);
    })
    .await;
    assert_eq!(done.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drift_that_can_not_be_repaired_takes_the_label_away() {
    let done = play(World::default(), async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(2).await;
        world.borrow_mut().failing_installs = 3;
        world.borrow_mut().is_intent_kept = true;
        world.borrow_mut().drift("x/a", Found::Changed("other content"));
        seconds(10).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "labels +2 -0", "labels +0 -2", "install x/a", "labels +2 -0"]);
}

#[tokio::test(start_paused = true)]
async fn a_drift_of_the_version_before_a_refused_one_is_repaired() {
    let ours = Found::Ours(Digest::of(CONTENT.as_bytes()));
    let world = World { disk: [("x/a".parse().unwrap(), ours)].into(), ..World::default() };
    let done = play(world, async |sender, world| {
        send(&sender, Event::NodeLabels(seen(&world.borrow())));
        let bundles = vec![with_content("x", "{}")];
        send(&sender, Event::Listed { namespace: Namespace::new("home").unwrap(), bundles });
        seconds(2).await;
        world.borrow_mut().drift("x/a", Found::Absent);
        seconds(2).await;
    })
    .await;
    assert_eq!(done, ["labels +2 -0", "install x/a"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_loop_writes_itself_leads_to_one_scan_that_does_nothing() {
    let (world, outcome) = play_to_the_end(World::default(), async |sender, _| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x", "y"]));
        seconds(200).await;
    })
    .await;
    outcome.unwrap();
    assert_eq!(world.done, ["install x/a", "install y/a", "labels +4 -0"]);
    assert_eq!(world.scans, [Care::Read, Care::Glance]);
}

#[tokio::test(start_paused = true)]
async fn the_disk_is_read_now_and_then_and_more_often_where_nobody_tells_of_changes() {
    for (is_unwatched, expected) in [(false, 1 + 2), (true, 1 + 60)] {
        let world = World { is_unwatched, ..World::default() };
        let (world, outcome) = play_to_the_end(world, async |_, _| seconds(605).await).await;
        outcome.unwrap();
        assert_eq!(world.scans, vec![Care::Read; expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn run_once_it_ends_when_all_is_written_and_labelled() {
    let node = || Event::NodeListed(NodeLabels::default());
    let world = World { failing_patches: 2, ..World::default() };
    let (done, outcome) = play_once(world, vec![node(), listed(&["x", "y"])]).await;
    assert_eq!(done, ["install x/a", "install y/a", "labels +4 -0"]);
    assert_eq!(outcome, Some(true));

    let world = World { failing_installs: 1, ..World::default() };
    let (done, outcome) = play_once(world, vec![node(), listed(&["x", "y"])]).await;
    assert_eq!((done, outcome), (vec!["install y/a".to_owned(), "labels +2 -0".to_owned()], Some(false)));

    for unknown in [node(), listed(&["x"])] {
        assert_eq!(play_once(World::default(), vec![unknown]).await.1, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_out_of_reach_ends_the_loop() {
    let (_, outcome) = play_to_the_end(World::default(), async |_, world| {
        seconds(1).await;
        world.borrow_mut().is_out_of_reach = true;
        world.borrow().tell();
        future::pending::<()>().await;
    })
    .await;
    assert!(outcome.is_err());
}

/// Runs the loop on a real disk, in real time, with these bundles, until `script` ends.
async fn play_on_disk(temporary: &Path, bundles: Vec<Bundle>, script: impl Future<Output = ()>) {
    let lock = Lock::try_take(&temporary.join("state")).unwrap().unwrap();
    let host = NodeHost::open(temporary, &temporary.join("state"), lock).unwrap();
    let changes = host.changes();
    let never = |_| future::pending().boxed_local();
    let listed = Event::Listed { namespace: Namespace::new("home").unwrap(), bundles };
    let events = stream::iter([Event::NodeLabels(NodeLabels::default()), listed]);
    let events = events.chain(stream::pending()).boxed_local();
    let status = Arc::new(Status::new());
    SyncLoop::new(host, None, rules(), vec![events], changes, never, status).run(script).await.unwrap();
}

/// Waits until `path` has the content of the profiles, and the agent has seen its own write and rests.
async fn wait_for(path: &Path, what: &str) {
    for _ in 0..1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if fs::read(path).is_ok_and(|text| text == CONTENT.as_bytes()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return;
        }
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_drift_on_disk_is_repaired() {
    let temporary = tempfile::tempdir().unwrap();
    let seccomp = temporary.path().join("seccomp");
    let script = async {
        let drifts: [&dyn Fn() -> std::io::Result<()>; 5] = [
            &|| Ok(()),
            &|| fs::write(seccomp.join("x/a"), "{}"),
            &|| fs::remove_file(seccomp.join("x/a")),
            &|| fs::remove_dir_all(seccomp.join("x")),
            &|| fs::rename(&seccomp, temporary.path().join("moved")),
        ];
        for (number, drift) in drifts.into_iter().enumerate() {
            drift().unwrap();
            wait_for(&seccomp.join("x/a"), &format!("drift {number}")).await;
        }
    };
    play_on_disk(temporary.path(), vec![bundle("x")], script).await;
}

#[tokio::test]
async fn a_drift_of_the_version_before_a_refused_one_is_repaired_after_a_restart() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("seccomp/x/a");
    play_on_disk(temporary.path(), vec![bundle("x")], wait_for(&path, "the version before")).await;
    let script = async {
        wait_for(&path, "it stays").await;
        for number in 0..3 {
            fs::remove_file(&path).unwrap();
            wait_for(&path, &format!("drift {number}")).await;
        }
    };
    play_on_disk(temporary.path(), vec![with_content("x", "{}")], script).await;
}
