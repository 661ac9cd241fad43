//! Scripts: what happens, and what is then to be done.
//!
//! | word | what happens |
//! |---|---|
//! | `+5s` | time passes |
//! | `scan web/a=1 web/b=changed` | a scan finds these; `absent` and `notafile` too |
//! | `list web:a=1,b=bad team/x:c=2` | the lists of all namespaces; `team/` is another namespace |
//! | `list-home …`, `list-team …` | the list of one namespace |
//! | `apply web:a=2`, `delete web` | one bundle |
//! | `apply web:unreadable` | one of which nothing can be told |
//! | `strays notes`, `strays` | what is at the source of `home` and is no bundle |
//! | `no-node` | there is no Node to be labelled |
//! | `apply web[disk=ssd]:a=2` | one for the Nodes with this label; `[=]` is no selector |
//! | `apply web@7:a=2` | one made at that time, 0 unless given |
//! | `apply web!:a=2` | one whose profiles shall have no labels |
//! | `done`, `fail`, `foreign`, `fail-removal` | the planned steps end so |
//! | `fail-owned` | the same as `fail`, but the ledger has the profile nevertheless |
//! | `fail-keep` | what was to be read from disk can't be |
//! | `send`, `written`, `lost` | the planned change of labels goes out; its outcome |
//! | `node seccomp/web_a disk=ssd !0`, `gone` | what the Node has now, as the watch tells; it does not exist |
//! | `!0`, in what the Node has | the startup taint, as the first of its taints |
//! | `untaint`, `untainted`, `tainted-still` | the planned removal of that goes out; its outcome |
//! | `stale seccomp/web_a` | the watch tells something older than the newest |
//! | `relist seccomp/web_a` | a list tells what the Node has now |
//! | `restore seccomp/web_a` | etcd is restored: the Node has these and an old version, which nobody tells |

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::*;
use super::kernel::{self, loaded};
use crate::bundle::{Bundle, BundleId, Profile, Source};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::file::Want;
use crate::name::{Namespace, NodeName};
use crate::platform::{AppArmor, Platform};
use crate::state::{Config, Event, Found, NodeLabels, State};
use crate::verdicts::Verdicts;

const HOME: &str = "home";
const TEAM: &str = "team";
/// The delay before removal, in seconds.
const DELAY: u64 = 300;

/// Plays `script`: after each line's event, the plan must read as the line says.
pub(super) fn check(script: &[(&str, &str)]) {
    let mut scene = Scene::new();
    for (number, (happens, expected)) in script.iter().enumerate() {
        scene.play(happens);
        assert_eq!(scene.plan(), *expected, "after line {number}, {happens:?}");
    }
}

/// A state with the world around it.
pub(crate) struct Scene {
    pub(crate) state: State,
    pub(crate) now: Time,
    /// The labels that the API server has.
    node: BTreeMap<LabelKey, String>,
    /// Those of others.
    others: BTreeMap<String, String>,
    taints: BTreeSet<usize>,
    version: u64,
    /// How it answers the change that was sent.
    answer: NodeLabels,
    /// How the AppArmor texts of the script are written.
    pub(super) texts: BTreeMap<Digest, String>,
}

impl Scene {
    /// Nothing is known but that the node has no pods.
    pub(crate) fn new() -> Self {
        let name = |text| Namespace::new(text).unwrap();
        let config = Config {
            home: name(HOME),
            others: [name(TEAM)].into(),
            removal_delay: Duration::from_secs(DELAY),
            node: Some(NodeName::new("node1").unwrap()),
            apparmor: AppArmor::Disabled,
        };
        let mut scene = Self {
            state: State::new(config),
            now: Time::default(),
            node: BTreeMap::new(),
            others: BTreeMap::new(),
            taints: BTreeSet::new(),
            version: 100,
            answer: NodeLabels::default(),
            texts: BTreeMap::new(),
        };
        scene.play("pods");
        scene
    }

    /// The same world, after the agent was started anew.
    pub(super) fn restarted(before: &Self) -> Self {
        let mut scene = Self { node: before.node.clone(), others: before.others.clone(), ..Self::new() };
        let loaded = before.state.files.iter().map(|(reference, file)| match &file.want {
            Want::Document(document) => (reference.clone(), Found::Ours(document.digest())),
            other => panic!("{reference} is {other:?}, not loaded"),
        });
        scene.apply(Event::Scanned(loaded.collect()));
        let node = scene.changed();
        scene.apply(Event::NodeListed(node));
        scene
    }

    /// The labels of ours that the Node has.
    pub(super) fn node(&self) -> impl Iterator<Item = &LabelKey> {
        self.node.keys()
    }

    pub(crate) fn play(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            word if self.play_apparmor(word, rest) => {}
            "scan" => self.apply(Event::Scanned(rest.split_whitespace().map(found).collect())),
            "list" => [HOME, TEAM].into_iter().for_each(|namespace| self.list(namespace, rest)),
            "list-home" => self.list(HOME, rest),
            "list-team" => self.list(TEAM, rest),
            "apply" => self.apply(Event::Applied(bundle(rest))),
            "strays" => self.apply(Event::Strays {
                namespace: Namespace::new(HOME).unwrap(),
                strays: rest.split_whitespace().map(|stray| (stray.to_owned(), "why")).collect(),
            }),
            "no-node" => self.state.config.node = None,
            "delete" => self.apply(Event::Deleted(bundle_id(rest))),
            "done" => {
                let installed = |install: Install| Event::Installed {
                    reference: install.reference,
                    digest: install.document.digest(),
                };
                self.finish(installed, loaded);
            }
            "fail" => self.fail(false),
            "fail-owned" => self.fail(true),
            "foreign" => {
                self.finish(
                    |install| Event::Foreign(install.reference),
                    |_, name| Event::PolicyForeign(name),
                );
            }
            "foreign-name" => {
                self.finish(
                    |install| Event::Foreign(install.reference),
                    |_, name| {
                        let is_it = name.as_str() == rest;
                        if is_it { Event::PolicyForeign(name) } else { Event::PolicyWithheld(name) }
                    },
                );
            }
            "fail-removal" => self.fail_removal(),
            "fail-keep" => self.fail_keep(),
            "send" => self.send(),
            "written" => self.apply(Event::LabelsWritten(self.answer.clone())),
            "lost" => self.apply(Event::LabelsFailed),
            "untaint" => self.untaint(),
            "untainted" => self.apply(Event::Untainted(self.answer.clone())),
            "tainted-still" => self.apply(Event::UntaintFailed),
            "node" => {
                self.set_node(rest);
                let node = self.changed();
                self.apply(Event::NodeLabels(node));
            }
            "stale" => {
                let stale = observation(rest);
                self.apply(Event::NodeLabels(NodeLabels { version: Some(1), ..stale }));
            }
            "relist" => {
                self.set_node(rest);
                let node = self.changed();
                self.apply(Event::NodeListed(node));
            }
            "restore" => {
                self.set_node(rest);
                self.version = 1;
            }
            "gone" => self.apply(Event::NodeGone),
            _ => self.now = self.now + Duration::from_secs(seconds(word)),
        }
    }

    pub(crate) fn apply(&mut self, event: Event) {
        self.state.apply(event, self.now);
    }

    fn list(&mut self, namespace: &str, bundles: &str) {
        let namespace = Namespace::new(namespace).unwrap();
        let bundles =
            bundles.split_whitespace().map(bundle).filter(|bundle| bundle.id.namespace == namespace);
        self.apply(Event::Listed { bundles: bundles.collect(), namespace });
    }

    fn finish(&mut self, outcome: impl Fn(Install) -> Event, of_load: impl Fn(&Load, ProfileName) -> Event) {
        let plan = self.state.plan(self.now);
        self.finish_loads(&plan, of_load);
        plan.install.into_iter().for_each(|install| self.apply(outcome(install)));
        plan.remove.into_iter().for_each(|reference| self.apply(Event::Removed(reference)));
        for Keep { reference, digest } in plan.keep {
            let mut versions = (1..10).map(|number| document(&number.to_string()));
            let document = versions.find(|document| document.digest() == digest).unwrap();
            self.apply(Event::Kept { reference, document });
        }
        if plan.labels.is_some() {
            self.send();
            self.play("written");
            // Let the pause after a write pass, which would only clutter the scripts.
            self.now = self.now + Duration::from_secs(1);
        }
        if plan.untaint.is_some() {
            self.untaint();
            self.play("untainted");
        }
    }

    fn set_node(&mut self, words: &str) {
        NodeLabels { labels: self.node, others: self.others, startup_taints: self.taints, .. } =
            observation(words);
    }

    fn fail(&mut self, is_owned: bool) {
        self.finish(
            |Install { reference, .. }| Event::InstallFailed { reference, is_owned },
            |_, name| Event::PolicyLoadFailed { name, is_owned },
        );
    }

    fn fail_removal(&mut self) {
        let plan = self.state.plan(self.now);
        plan.remove.into_iter().for_each(|reference| self.apply(Event::RemoveFailed(reference)));
        plan.unload.into_iter().for_each(|name| self.apply(Event::PolicyRemoveFailed(name)));
    }

    fn fail_keep(&mut self) {
        let plan = self.state.plan(self.now);
        plan.keep.into_iter().for_each(|keep| self.apply(Event::KeepFailed(keep.reference)));
    }

    fn send(&mut self) {
        let change = self.state.plan(self.now).labels.expect("a change of labels to send");
        for label in &change.unset {
            self.node.remove(label);
        }
        self.node.extend(change.set.iter().map(|label| (label.clone(), LABEL_VALUE.to_owned())));
        self.answer = self.changed();
        self.apply(Event::LabelsSent(change));
    }

    fn untaint(&mut self) {
        let untaint = self.state.plan(self.now).untaint.expect("a taint to take away");
        assert_eq!(untaint.at, self.taints, "an API server would refuse this");
        self.taints.clear();
        self.answer = self.changed();
        self.apply(Event::UntaintSent);
    }

    /// The Node in a new version.
    fn changed(&mut self) -> NodeLabels {
        self.version += 1;
        let (labels, others) = (self.node.clone(), self.others.clone());
        NodeLabels { version: Some(self.version), labels, others, startup_taints: self.taints.clone() }
    }

    pub(super) fn plan(&self) -> String {
        let plan = self.state.plan(self.now);
        let mut words = Vec::new();
        for install in &plan.install {
            words.push(format!("install {}={}", install.reference, version(install.document.content())));
        }
        words.extend(self.apparmor_words(&plan));
        words.extend(plan.keep.iter().map(|keep| format!("keep {}", keep.reference)));
        words.extend(plan.remove.iter().map(|reference| format!("remove {reference}")));
        for (sign, labels) in plan.labels.iter().flat_map(|change| [("+", &change.set), ("-", &change.unset)])
        {
            words.extend(labels.iter().map(|label| format!("{sign}{label}").replace(".pavise.dev", "")));
        }
        if let Some(Untaint { at, lacks }) = &plan.untaint {
            words.push(format!("untaint {at:?} {lacks:?}").replace(" []", ""));
        }
        if let Some(at) = plan.wake_at {
            words.push(format!("wake {}s", at.elapsed().saturating_sub(self.now.elapsed()).as_secs_f32()));
        }
        words.join(" ")
    }
}

fn seconds(word: &str) -> u64 {
    let digits = word.strip_prefix('+').and_then(|rest| rest.strip_suffix('s'));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("unknown word {word:?}"))
}

fn bundle_id(text: &str) -> BundleId {
    let (namespace, name) = text.split_once('/').unwrap_or((HOME, text));
    BundleId::new(namespace, name).unwrap()
}

fn content(version: &str) -> String {
    if version == "bad" {
        return "{}".to_owned();
    }
    format!(r#"{{"defaultAction":"SCMP_ACT_LOG","version":"{version}"}}"#)
}

/// What [`content`] was made of.
fn version(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    text.rsplit('"').nth(1).unwrap_or_default().to_owned()
}

/// `web[disk=ssd]@7!:a=1,b=bad`, or `~web:a=p+q/1` for one of AppArmor texts.
pub(super) fn bundle(text: &str) -> Bundle {
    let (kind, text) = text.strip_prefix('~').map_or((Kind::Seccomp, text), |text| (Kind::AppArmor, text));
    let (head, profiles) = text.split_once(':').unwrap_or((text, ""));
    if profiles == "unreadable" {
        return Bundle { kind: Some(kind), ..Bundle::unreadable(bundle_id(head), unreadable()) };
    }
    let (head, labels) = head.strip_suffix('!').map_or((head, None), |head| (head, Some("bundle")));
    let (head, created) = head.split_once('@').unwrap_or((head, "0"));
    let (id, selector) = head.split_once('[').unwrap_or((head, ""));
    let annotations = [("node-labels", labels), ("node-selector", selector.strip_suffix(']'))];
    let annotation =
        |(name, value): (&str, Option<&str>)| Some((format!("pavise.dev/{name}"), value?.to_owned()));
    let pair = |item: &str| {
        let (key, version) = item.split_once('=').unwrap();
        let text = if kind == Kind::AppArmor { kernel::text(version) } else { content(version) };
        (key.to_owned(), text)
    };
    let source = Source {
        annotations: annotations.into_iter().filter_map(annotation).collect(),
        created: created.parse().ok(),
        data: profiles.split(',').filter(|item| !item.is_empty()).map(pair).collect(),
        id: bundle_id(id),
        kind: kind.to_string(),
        ..Source::example("b", &[])
    };
    Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE))
}

fn unreadable() -> Diagnostic {
    Diagnostic { code: Code::Unreadable, place: Place::at("$"), message: String::new(), help: "" }
}

/// `web/a=1`
fn found(text: &str) -> (Reference, Found) {
    let (reference, what) = text.split_once('=').unwrap();
    let found = match what {
        "absent" => Found::Absent,
        "changed" => Found::Changed("other content"),
        "notafile" => Found::NotAFile("a symbolic link"),
        version => Found::Ours(document(version).digest()),
    };
    (reference.parse().unwrap(), found)
}

fn document(version: &str) -> Document {
    let bundle = bundle(&format!("any:key={version}"));
    match bundle.profiles.into_values().next() {
        Some(Profile::Accepted(document, _)) => document,
        other => panic!("{other:?} is no accepted profile"),
    }
}

/// `seccomp/web_a bundle/web=false disk=ssd !0`: labels of ours, those of others, which have no `/`, and where
/// the startup taint stands. The value is `true` unless given.
fn observation(text: &str) -> NodeLabels {
    let mut seen = NodeLabels::default();
    for word in text.split_whitespace() {
        if let Some(index) = word.strip_prefix('!') {
            seen.startup_taints.insert(index.parse().unwrap());
            continue;
        }
        let (key, value) = word.split_once('=').unwrap_or((word, LABEL_VALUE));
        match LabelKey::observed(&key.replacen('/', ".pavise.dev/", 1)) {
            Some(label) => drop(seen.labels.insert(label, value.to_owned())),
            None => drop(seen.others.insert(key.to_owned(), value.to_owned())),
        }
    }
    seen
}
