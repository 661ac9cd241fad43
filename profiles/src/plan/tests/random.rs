//! Random histories of a node with AppArmor, against a kernel that is simulated.
//!
//! After each event the agent acts until it has nothing to do, and what must always hold is checked at each
//! step. In the end all that fails stops failing, and the node must become what its bundles say.

use std::time::Duration;

use super::kernel::{self, blob, digest, name, names, policy, refusal};
use super::scene::bundle;
use super::*;
use crate::apparmor::kernel::{FoundPolicy, InKernel};
use crate::bundle::{BundleId, Kind};
use crate::claims::Grant;
use crate::name::NodeName;
use crate::platform::AppArmor;
use crate::pod::{Need, Pod, PodId, examples};
use crate::seed;
use crate::state::{Compiled, Config, Event, NodeLabels};

/// The texts that bundles have; those of version 9 are refused by the compiler.
const TEXTS: &[&str] = &[
    "a/1", "a/2", "b/1", "a+b/1", "a+b/2", "b+c/1", "c/1", "c/2", "d/1", "a+d/1", "a/9", "b+c/9", "d/9",
    "bad",
];
const NAMES: &[&str] = &["a", "b", "c", "d"];
const BUNDLES: &[&str] = &["old", "mid", "team/new"];
/// What pods need, as [`examples::pod`] reads it.
const NEEDS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "%apparmor.pavise.dev/a",
    "%apparmor.pavise.dev/b",
    "%bundle.pavise.dev/mid",
    "%team.bundle.pavise.dev/new",
];

/// A stream of numbers that look random (`SplitMix64`).
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(super) fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// Whether something happens that does once in so many times.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What the kernel has under a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Held {
    Ours(Digest),
    Foreign,
}

/// The world around the agent.
struct World {
    random: Random,
    state: State,
    now: Time,
    kernel: BTreeMap<ProfileName, Held>,
    /// The text and blob of each name.
    ledger: BTreeMap<ProfileName, (Digest, Digest)>,
    /// What the host has of each text: the number of the compiler.
    store: BTreeMap<Digest, u32>,
    compiler: u32,
    bundles: BTreeMap<String, String>,
    pods: BTreeMap<PodId, Pod>,
    node: BTreeMap<LabelKey, String>,
    is_ssd: bool,
    /// Whether steps fail now and then.
    is_rough: bool,
    /// So often something was put into the kernel.
    loads: usize,
    patches: usize,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: Random(seed),
            state: fresh(),
            now: Time::default(),
            kernel: BTreeMap::new(),
            ledger: BTreeMap::new(),
            store: BTreeMap::new(),
            compiler: 1,
            bundles: BTreeMap::new(),
            pods: BTreeMap::new(),
            node: BTreeMap::new(),
            is_ssd: true,
            is_rough: true,
            loads: 0,
            patches: 0,
            log: Vec::new(),
        };
        world.start();
        world
    }

    fn apply(&mut self, event: Event) {
        self.state.apply(event, self.now);
    }

    /// The agent starts: it scans, and learns the rest in some order, acting in between.
    fn start(&mut self) {
        self.state = fresh();
        self.apply(Event::Scanned(BTreeMap::new()));
        self.scan();
        self.act();
        let mut order = [0, 1, 2, 3];
        for index in (1..order.len()).rev() {
            order.swap(index, self.random.below(index + 1));
        }
        for step in order {
            match step {
                0 => self.list("home"),
                1 => self.list("team"),
                2 => self.apply(Event::PodsListed(self.pods.clone())),
                _ => self.see_node(),
            }
            self.act();
        }
    }

    fn list(&mut self, namespace: &str) {
        let all = self.bundles.values().map(|text| bundle(text));
        let bundles = all.filter(|bundle| bundle.id.namespace.as_str() == namespace).collect();
        self.apply(Event::Listed { namespace: Namespace::new(namespace).unwrap(), bundles });
    }

    fn node_labels(&self) -> NodeLabels {
        let disk = if self.is_ssd { "ssd" } else { "hdd" };
        let others = [("disk".to_owned(), disk.to_owned())].into();
        NodeLabels { labels: self.node.clone(), others, ..NodeLabels::default() }
    }

    fn see_node(&mut self) {
        self.apply(Event::NodeLabels(self.node_labels()));
    }

    fn scan(&mut self) {
        let found = self.ledger.iter().map(|(name, (text, of_ledger))| {
            let is_current =
                self.store.get(text).is_some_and(|by| *by == self.compiler && blob(*text, *by) == *of_ledger);
            let kernel = match self.kernel.get(name) {
                None => InKernel::Absent,
                Some(Held::Ours(held)) => InKernel::Ours(*held),
                Some(Held::Foreign) => InKernel::Changed("another digest"),
            };
            (name.clone(), FoundPolicy { text: *text, blob: *of_ledger, is_current, kernel })
        });
        let found = found.collect();
        self.apply(Event::PolicyScanned(found));
    }

    fn fails(&mut self) -> bool {
        self.is_rough && self.random.one_in(8)
    }

    /// Does what is to be done, until there is nothing.
    fn act(&mut self) {
        for _ in 0..100 {
            let plan = self.state.plan(self.now);
            let is_idle = !plan.has_disk_steps() && plan.compile.is_empty() && plan.labels.is_none();
            if is_idle {
                return self.check();
            }
            self.act_on(plan);
        }
        panic!("there is no end to it:\n{:?}\n{}", self.state.plan(self.now), self.log.join("\n"));
    }

    fn act_on(&mut self, plan: Plan) {
        for load in plan.load {
            self.load(&load);
        }
        for name in plan.unload {
            self.unload(name);
        }
        for compile in plan.compile {
            self.compile(&compile);
        }
        if let Some(change) = plan.labels {
            self.label(&change);
        }
    }

    fn compile(&mut self, compile: &Compile) {
        let text = compile.text;
        self.apply(Event::Compiling(text));
        let word = TEXTS.iter().find(|word| digest(word) == text).unwrap();
        assert!(compile.document.is_some() || self.store.contains_key(&text), "nobody has {word}");
        let outcome = if self.fails() {
            Compiled::Failed
        } else if word.ends_with('9') {
            Compiled::Refused([refusal()].into())
        } else {
            self.store.insert(text, self.compiler);
            Compiled::Accepted(policy(text, &names(word), self.compiler), [].into())
        };
        self.apply(Event::Compiled { text, outcome });
    }

    fn load(&mut self, load: &Load) {
        let word = TEXTS.iter().find(|word| digest(word) == load.text).unwrap();
        let is_foreign = |name: &ProfileName| {
            self.kernel.get(name) == Some(&Held::Foreign) && !self.ledger.contains_key(name)
        };
        let foreign: BTreeSet<ProfileName> =
            load.names.iter().filter(|name| is_foreign(name)).cloned().collect();
        // The host knows what is in the blob.
        if names(word) != load.names || !foreign.is_empty() || self.fails() {
            for name in &load.names {
                let is_owned = self.ledger.contains_key(name);
                let name = name.clone();
                self.apply(if foreign.contains(&name) {
                    Event::PolicyForeign(name)
                } else if foreign.is_empty() {
                    Event::PolicyLoadFailed { name, is_owned }
                } else {
                    Event::PolicyWithheld(name)
                });
            }
            return;
        }
        assert_eq!(self.store.get(&load.text), Some(&self.compiler), "{word} is for another kernel");
        let made = blob(load.text, self.compiler);
        for grant in self.state.policies.grants.values() {
            let Grant::Granted(document) = grant else { continue };
            let is_other =
                document.digest() != load.text && self.state.policies.is_accepted(document.digest());
            assert!(
                !is_other || document.names().is_disjoint(&load.names),
                "{word} takes a name from its owner\n{}",
                self.log.join("\n")
            );
        }
        self.loads += 1;
        for name in &load.names {
            self.ledger.insert(name.clone(), (load.text, made));
            self.kernel.insert(name.clone(), Held::Ours(made));
        }
        for name in load.names.clone() {
            self.apply(Event::PolicyLoaded { name, text: load.text, blob: made });
        }
    }

    fn unload(&mut self, name: ProfileName) {
        let profile = &self.state.policies.profiles[&name];
        let labels = [Some(&profile.label), profile.bundle_label()];
        let is_selected = labels.into_iter().flatten().any(|label| self.is_selected(label));
        let is_referred = self.is_needed(&Need::Profile(Kind::AppArmor, name.to_string()));
        assert!(!is_referred && !is_selected, "{name} is needed\n{}", self.log.join("\n"));
        assert!(!self.node.contains_key(&LabelKey::of_policy(&name)), "{name} is labelled");
        assert!(!self.state.is_claimed(&name), "{name} is asked for");
        if self.fails() {
            let event = if self.random.one_in(2) { Event::PolicyInUse } else { Event::PolicyRemoveFailed };
            return self.apply(event(name));
        }
        self.kernel.remove(&name);
        self.ledger.remove(&name);
        self.apply(Event::PolicyRemoved(name));
    }

    fn is_needed(&self, need: &Need) -> bool {
        self.pods.values().any(|pod| pod.needs().contains(need))
    }

    fn is_selected(&self, label: &LabelKey) -> bool {
        self.is_needed(&Need::Label(label.clone()))
    }

    fn label(&mut self, change: &LabelChange) {
        self.patches += 1;
        self.log.push(format!("  labels {change:?}"));
        for name in NAMES.iter().map(|text| name(text)) {
            if change.set.contains(&LabelKey::of_policy(&name)) {
                assert!(self.is_ours(&name), "{name} is labelled and not loaded\n{}", self.log.join("\n"));
            }
        }
        for label in &change.unset {
            assert!(!self.is_selected(label), "{label} is needed\n{}", self.log.join("\n"));
        }
        self.apply(Event::LabelsSent(change.clone()));
        if self.fails() {
            return self.apply(Event::LabelsFailed);
        }
        self.node.retain(|label, _| !change.unset.contains(label));
        self.node.extend(change.set.iter().map(|label| (label.clone(), LABEL_VALUE.to_owned())));
        self.apply(Event::LabelsWritten(self.node_labels()));
    }

    fn is_ours(&self, name: &ProfileName) -> bool {
        matches!(self.kernel.get(name), Some(Held::Ours(_)))
    }

    /// What holds whenever there is nothing to do now.
    fn check(&self) {
        let log = || self.log.join("\n");
        let plan = self.state.plan(self.now);
        let is_node_known = self.state.labels.observed.is_some() && self.state.pods.are_known();
        let is_known = self.state.is_all_listed() && is_node_known;
        if plan.wake_at.is_none() && is_known {
            for name in NAMES.iter().map(|text| name(text)) {
                let label = LabelKey::of_policy(&name);
                let is_labelled = self.node.contains_key(&label) && !self.is_selected(&label);
                assert!(!is_labelled || self.is_ours(&name), "{name} is labelled and not loaded\n{}", log());
            }
            for (slot, grant) in &self.state.policies.grants {
                let Grant::Granted(document) = grant else { continue };
                let Some(policy) = self.state.policies.accepted(document.digest()) else { continue };
                for name in document.names() {
                    assert_eq!(
                        self.kernel.get(name),
                        Some(&Held::Ours(policy.blob)),
                        "{slot:?} {name}\n{}",
                        log()
                    );
                }
            }
        }
    }

    /// Time passes, and what is due is done.
    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(at) = self.state.plan(self.now).wake_at.filter(|at| *at <= end) {
            self.now = at;
            self.act();
        }
        self.now = end;
        self.act();
    }

    /// Something happens.
    fn happen(&mut self) {
        let kind = self.random.below(20);
        let bundle_name = self.random.pick(BUNDLES);
        let id = || {
            BundleId::new(
                if bundle_name.starts_with("team/") { "team" } else { "home" },
                bundle_name.trim_start_matches("team/"),
            )
        };
        let name = name(self.random.pick(NAMES));
        let note = match kind {
            0..=6 => {
                let text = self.some_bundle(bundle_name, TEXTS);
                self.bundles.insert(bundle_name.to_owned(), text.clone());
                self.apply(Event::Applied(bundle(&text)));
                format!("apply {text}")
            }
            7 | 8 => {
                self.bundles.remove(bundle_name);
                self.apply(Event::Deleted(id().unwrap()));
                format!("delete {bundle_name}")
            }
            9 | 10 => {
                let uid = self.random.below(3).to_string();
                let pod = PodId { namespace: "ns".to_owned(), name: uid.clone(), uid };
                let new = examples::pod([self.random.pick(NEEDS)]);
                if self.random.one_in(2) {
                    self.pods.remove(&pod);
                    self.apply(Event::PodDeleted(pod.clone()));
                } else {
                    self.pods.insert(pod.clone(), new.clone());
                    self.apply(Event::PodApplied(pod.clone(), new));
                }
                format!("pod {pod} {:?}", self.pods.get(&pod))
            }
            11 => {
                self.kernel.remove(&name);
                self.scan();
                format!("somebody removes {name}")
            }
            12 => {
                self.kernel.insert(name.clone(), Held::Foreign);
                self.scan();
                format!("somebody loads {name}")
            }
            13 => {
                self.is_ssd = !self.is_ssd;
                self.see_node();
                format!("ssd {}", self.is_ssd)
            }
            14 => {
                self.start();
                "restart".to_owned()
            }
            15 => {
                self.kernel.clear();
                self.compiler += u32::from(self.random.one_in(2));
                self.start();
                format!("reboot, compiler {}", self.compiler)
            }
            16 => {
                self.scan();
                "scan".to_owned()
            }
            _ => {
                let seconds = [1, 60, 299, 400][self.random.below(4)];
                self.wait(Duration::from_secs(seconds));
                format!("{seconds} seconds")
            }
        };
        self.log.push(note);
        self.act();
    }

    fn some_bundle(&mut self, bundle: &str, texts: &[&str]) -> String {
        let selector =
            ["", "", "", "[disk=ssd]", "[=]"][self.random.below(if texts == TEXTS { 5 } else { 4 })];
        let age = BUNDLES.iter().position(|one| *one == bundle).unwrap();
        let keys = ["k", "l"][..=self.random.below(2)].iter();
        let keys: Vec<String> = keys.map(|key| format!("{key}={}", self.random.pick(texts))).collect();
        format!("~{bundle}{selector}@{age}:{}", keys.join(","))
    }

    /// Nothing fails any more, nobody interferes, and nobody uses anything.
    fn calm_down(&mut self) {
        self.is_rough = false;
        self.kernel.retain(|_, held| *held != Held::Foreign);
        self.pods.clear();
        self.apply(Event::PodsListed(BTreeMap::new()));
        self.scan();
        self.act();
        self.wait(Duration::from_hours(1));
    }

    /// What is loaded, by the words for the texts.
    fn loaded(&self) -> BTreeMap<ProfileName, String> {
        let word = |held: &Held| {
            let of = |word: &&&str| *held == Held::Ours(blob(digest(word), self.compiler));
            TEXTS.iter().find(of).map_or_else(|| format!("{held:?}"), |word| (*word).to_owned())
        };
        self.kernel.iter().map(|(name, held)| (name.clone(), word(held))).collect()
    }

    /// What is to be loaded when nothing was there before: texts one after the other, the oldest bundle's
    /// first, unless a name is taken, or stands in an earlier key.
    fn expected(&self) -> BTreeMap<ProfileName, String> {
        let mut all = BTreeMap::new();
        for of in BUNDLES {
            let Some(text) = self.bundles.get(*of) else { continue };
            let (head, keys) = text.split_once(':').unwrap();
            if head.contains("disk=ssd") && !self.is_ssd {
                continue;
            }
            let mut declared = BTreeSet::new();
            for word in keys.split(',').map(|pair| pair.split_once('=').unwrap().1) {
                let names = names(word);
                if !declared.is_disjoint(&names) {
                    continue;
                }
                declared.extend(names.iter().cloned());
                if names.iter().all(|name| !all.contains_key(name)) {
                    all.extend(names.into_iter().map(|name| (name, word.to_owned())));
                }
            }
        }
        all
    }
}

fn fresh() -> State {
    State::new(Config {
        home: Namespace::new("home").unwrap(),
        others: [Namespace::new("team").unwrap()].into(),
        removal_delay: Duration::from_mins(5),
        node: Some(NodeName::new("node1").unwrap()),
        apparmor: AppArmor::Enabled,
    })
}

#[test]
fn what_must_hold_holds_through_random_histories() {
    for history in 0..20 {
        let mut world = World::new(seed::number().wrapping_mul(1_000_000) + history);
        for _ in 0..60 {
            world.happen();
        }
        world.log.push(format!("history {history} calms down"));
        world.calm_down();

        let (loads, patches) = (world.loads, world.patches);
        world.wait(Duration::from_hours(24));
        let log = world.log.join("\n");
        assert_eq!((world.loads, world.patches), (loads, patches), "nothing changed\n{log}");

        // What every bundle asks for is taken away.
        for of in BUNDLES {
            world.bundles.remove(*of);
        }
        for namespace in ["home", "team"] {
            world.list(namespace);
        }
        world.wait(Duration::from_hours(1));
        assert_eq!((world.loaded(), world.ledger.len(), world.node.len()), (BTreeMap::new(), 0, 0), "{log}");

        // And all of it anew.
        for of in BUNDLES {
            let text = world.some_bundle(of, &TEXTS[..10]);
            log_and_insert(&mut world, of, text);
        }
        for namespace in ["home", "team"] {
            world.list(namespace);
        }
        world.act();
        world.wait(Duration::from_mins(1));
        let log = world.log.join("\n");
        assert_eq!(world.loaded(), world.expected(), "{:?}\n{log}", world.bundles);

        // A restart changes nothing.
        let (loads, patches) = (world.loads, world.patches);
        world.start();
        world.wait(Duration::from_hours(1));
        let log = world.log.join("\n");
        assert_eq!((world.loads, world.patches), (loads, patches), "nothing changed\n{log}");
        // And a reboot brings all back, also with another compiler.
        world.kernel.clear();
        world.compiler += 1;
        world.start();
        world.wait(Duration::from_mins(1));
        assert_eq!(world.loaded(), world.expected(), "{log}");
        assert_eq!(world.patches, patches, "the labels stay\n{log}");
    }
}

fn log_and_insert(world: &mut World, of: &str, text: String) {
    world.log.push(format!("list {text}"));
    world.bundles.insert(of.to_owned(), text);
}

#[test]
fn a_text_of_a_script_reads_as_it_is_written() {
    for word in ["a/1", "a+b/2"] {
        assert_eq!(kernel::word(&kernel::text(word)), word);
    }
}
