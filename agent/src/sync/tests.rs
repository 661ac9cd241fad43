//! The loop with a host that fails on demand, and paused time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use profiles::bundle::{Bundle, BundleId};
use profiles::label::LABEL_VALUE;
use profiles::name::Namespace;
use profiles::plan::Install;
use profiles::reference::Reference;
use profiles::state::{Found, NodeLabels};

use super::*;
use crate::host::Outcomes;
use crate::host::error::HostError;

/// All that was done outside, in order, and what is to fail.
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
    version: u64,
}

type Shared = Rc<RefCell<World>>;

struct FakeHost(Shared);

impl Host for FakeHost {
    fn scan(&mut self) -> BTreeMap<Reference, Found> {
        BTreeMap::new()
    }

    fn install(&mut self, batch: Vec<Install>) -> Outcomes<Installed> {
        let mut world = self.0.borrow_mut();
        let install = |Install { reference, document }| {
            if world.failing_installs > 0 {
                world.failing_installs -= 1;
                let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return (reference, Err(HostError::new("writing", Path::new("/x"), error)));
            }
            world.done.push(format!("install {reference}"));
            (reference, Ok(Installed::Written(document.digest())))
        };
        batch.into_iter().map(install).collect()
    }

    fn owns(&self, _: &Reference) -> bool {
        self.0.borrow().is_intent_kept
    }

    fn remove(&mut self, batch: Vec<Reference>) -> Outcomes<()> {
        let mut world = self.0.borrow_mut();
        world.done.extend(batch.iter().map(|reference| format!("remove {reference}")));
        batch.into_iter().map(|reference| (reference, Ok(()))).collect()
    }
}

async fn patch(world: Shared, change: LabelChange) -> Vec<Event> {
    while world.borrow().is_api_server_stuck {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut world = world.borrow_mut();
    if world.failing_patches > 0 {
        world.failing_patches -= 1;
        return vec![Event::LabelsFailed];
    }
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
    }
}

fn bundle(name: &str) -> Bundle {
    let data = [("a".to_owned(), r#"{"defaultAction":"SCMP_ACT_LOG"}"#.to_owned())].into();
    Bundle::of_seccomp(BundleId::new("home", name).unwrap(), data, Vec::new())
}

fn listed(names: &[&str]) -> Event {
    let bundles = names.iter().map(|name| bundle(name)).collect();
    Event::Listed { namespace: Namespace::new("home").unwrap(), bundles }
}

/// Runs the loop in `world` while `script` feeds it events. Returns all that was done.
async fn play<F>(world: World, script: impl FnOnce(UnboundedSender<Event>, Shared) -> F) -> Vec<String>
where
    F: Future<Output = ()>,
{
    let shared = Rc::new(RefCell::new(world));
    let rules = Config {
        home: Namespace::new("home").unwrap(),
        others: BTreeSet::new(),
        removal_delay: Duration::from_mins(5),
    };
    let (sender, events) = unbounded();
    let api_server = shared.clone();
    let write_labels = move |change| patch(api_server.clone(), change).boxed_local();
    let sync = SyncLoop::new(FakeHost(shared.clone()), rules, vec![events.boxed_local()], write_labels);
    sync.run(script(sender, shared.clone())).await.unwrap();
    shared.take().done
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
