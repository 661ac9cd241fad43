//! The rules, each as a script: what happens, and what is then to be done.
//!
//! | word | what happens |
//! |---|---|
//! | `+5s` | time passes |
//! | `scan web/a=1 web/b=changed` | a scan finds these; `absent` and `notafile` too |
//! | `list web:a=1,b=bad team/x:c=2` | the lists of all namespaces; `team/` is another namespace |
//! | `list-home …`, `list-team …` | the list of one namespace |
//! | `apply web:a=2`, `delete web` | one bundle |
//! | `done`, `fail`, `foreign`, `fail-removal` | the planned steps end so |
//! | `send`, `written`, `lost` | the planned change of labels goes out; its outcome |
//! | `node seccomp/web_a`, `gone` | what the Node has now; it does not exist |
//! | `stale seccomp/web_a` | an observation older than the newest |

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::bundle::{Bundle, BundleId, Profile};
use crate::name::Namespace;
use crate::state::{Config, Event, Found, NodeLabels, State};

const HOME: &str = "home";
const TEAM: &str = "team";
/// The delay before removal, in seconds.
const DELAY: u64 = 300;

/// Plays `script`: after each line's event, the plan must read as the line says.
fn check(script: &[(&str, &str)]) {
    let mut scene = Scene::new();
    for (number, (happens, expected)) in script.iter().enumerate() {
        scene.play(happens);
        assert_eq!(scene.plan(), *expected, "after line {number}, {happens:?}");
    }
}

/// A state with the world around it.
struct Scene {
    state: State,
    now: Time,
    /// The labels that the API server has.
    node: BTreeMap<LabelKey, String>,
    version: u64,
}

impl Scene {
    fn new() -> Self {
        let name = |text| Namespace::new(text).unwrap();
        let config = Config {
            home: name(HOME),
            others: [name(TEAM)].into(),
            removal_delay: Duration::from_secs(DELAY),
        };
        Self { state: State::new(config), now: Time::default(), node: BTreeMap::new(), version: 100 }
    }

    fn play(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "scan" => self.apply(Event::Scanned(rest.split_whitespace().map(found).collect())),
            "list" => [HOME, TEAM].into_iter().for_each(|namespace| self.list(namespace, rest)),
            "list-home" => self.list(HOME, rest),
            "list-team" => self.list(TEAM, rest),
            "apply" => self.apply(Event::Applied(bundle(rest))),
            "delete" => self.apply(Event::Deleted(bundle_id(rest))),
            "done" => self.finish(|install| Event::Installed {
                reference: install.reference,
                digest: install.document.digest(),
            }),
            "fail" => self.finish(|install| Event::InstallFailed(install.reference)),
            "foreign" => self.finish(|install| Event::Foreign(install.reference)),
            "fail-removal" => self.fail_removal(),
            "send" => self.send(),
            "written" => self.written(),
            "lost" => self.apply(Event::LabelsFailed),
            "node" => {
                self.node = labels(rest);
                self.observe();
            }
            "stale" => self.apply(Event::NodeLabels(NodeLabels { version: Some(1), labels: labels(rest) })),
            "gone" => self.apply(Event::NodeGone),
            _ => self.now = self.now + Duration::from_secs(seconds(word)),
        }
    }

    fn apply(&mut self, event: Event) {
        self.state.apply(event, self.now);
    }

    fn list(&mut self, namespace: &str, bundles: &str) {
        let namespace = Namespace::new(namespace).unwrap();
        let bundles =
            bundles.split_whitespace().map(bundle).filter(|bundle| bundle.id.namespace == namespace);
        self.apply(Event::Listed { bundles: bundles.collect(), namespace });
    }

    fn finish(&mut self, outcome: impl Fn(Install) -> Event) {
        let plan = self.state.plan(self.now);
        plan.install.into_iter().for_each(|install| self.apply(outcome(install)));
        plan.remove.into_iter().for_each(|reference| self.apply(Event::Removed(reference)));
        if plan.labels.is_some() {
            self.send();
            self.written();
            // Let the pause after a write pass, which would only clutter the scripts.
            self.now = self.now + Duration::from_secs(1);
        }
    }

    fn fail_removal(&mut self) {
        let plan = self.state.plan(self.now);
        plan.remove.into_iter().for_each(|reference| self.apply(Event::RemoveFailed(reference)));
    }

    fn send(&mut self) {
        let change = self.state.plan(self.now).labels.expect("a change of labels to send");
        for label in &change.unset {
            self.node.remove(label);
        }
        self.node.extend(change.set.iter().map(|label| (label.clone(), LABEL_VALUE.to_owned())));
        self.apply(Event::LabelsSent(change));
    }

    fn written(&mut self) {
        self.observe();
        self.apply(Event::LabelsWritten);
    }

    fn observe(&mut self) {
        self.version += 1;
        let node = NodeLabels { version: Some(self.version), labels: self.node.clone() };
        self.apply(Event::NodeLabels(node));
    }

    fn plan(&self) -> String {
        let plan = self.state.plan(self.now);
        let mut words = Vec::new();
        for install in &plan.install {
            words.push(format!("install {}={}", install.reference, version(install.document.content())));
        }
        words.extend(plan.remove.iter().map(|reference| format!("remove {reference}")));
        for (sign, labels) in plan.labels.iter().flat_map(|change| [("+", &change.set), ("-", &change.unset)])
        {
            words.extend(labels.iter().map(|label| format!("{sign}{label}").replace(".pavise.dev", "")));
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

/// `web:a=1,b=bad`
fn bundle(text: &str) -> Bundle {
    let (id, profiles) = text.split_once(':').unwrap_or((text, ""));
    let pair = |item: &str| {
        let (key, version) = item.split_once('=').unwrap();
        (key.to_owned(), content(version))
    };
    let data = profiles.split(',').filter(|item| !item.is_empty()).map(pair).collect();
    Bundle::of_seccomp(bundle_id(id), data, Vec::new())
}

/// `web/a=1`
fn found(text: &str) -> (Reference, Found) {
    let (reference, what) = text.split_once('=').unwrap();
    let found = match what {
        "absent" => Found::Absent,
        "changed" => Found::Changed,
        "notafile" => Found::NotAFile,
        version => Found::Ours(document(version).digest()),
    };
    (reference.parse().unwrap(), found)
}

fn document(version: &str) -> Document {
    let bundle = bundle(&format!("any:key={version}"));
    match bundle.profiles.into_values().next() {
        Some(Profile::Accepted(document)) => document,
        other => panic!("{other:?} is no accepted profile"),
    }
}

/// `seccomp/web_a bundle/web=false`; the value is `true` unless given.
fn labels(text: &str) -> BTreeMap<LabelKey, String> {
    let label = |word: &str| {
        let (key, value) = word.split_once('=').unwrap_or((word, LABEL_VALUE));
        (LabelKey::observed(&key.replacen('/', ".pavise.dev/", 1)).unwrap(), value.to_owned())
    };
    text.split_whitespace().map(label).collect()
}

#[test]
fn nothing_is_done_before_the_disk_was_scanned() {
    check(&[("node", ""), ("list web:a=1", ""), ("scan", "install web/a=1")]);
}

#[test]
fn a_profile_is_labelled_after_it_is_loaded() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1 team/x:b=1", "install web/a=1 install _team/x/b=1"),
        ("done", "+bundle/web +seccomp/web_a +team.bundle/x +team.seccomp/x_b"),
        ("done", ""),
    ]);
}

#[test]
fn a_profile_is_unlabelled_before_it_is_removed() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_a"),
        ("send", ""),
        ("written", "remove web/a"),
        ("done", ""),
    ]);
}

#[test]
fn nothing_is_removed_while_the_labels_of_the_node_are_unknown() {
    check(&[("scan web/a=1", ""), ("list", "wake 300s"), ("+300s", ""), ("node", "remove web/a")]);
    check(&[("scan web/a=1", ""), ("node", ""), ("list", "wake 300s"), ("gone", "wake 300s"), ("+300s", "")]);
}

#[test]
fn a_profile_is_installed_while_the_api_server_is_away() {
    check(&[
        ("scan", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", ""),
        ("apply web:a=2", "install web/a=2"),
        ("done", ""),
        ("node", "+bundle/web +seccomp/web_a"),
    ]);
}

#[test]
fn unknown_desired_state_removes_nothing() {
    check(&[
        ("scan web/a=1 web/b=changed", ""),
        ("node seccomp/web_a seccomp/web_b bundle/old", ""),
        ("+9000s", ""),
        ("list-home", ""),
        ("+9000s", ""),
        ("list-team", "-bundle/old -seccomp/web_b wake 300s"),
        ("done", "wake 299s"),
        ("+299s", "remove web/b"),
        ("done", "-seccomp/web_a"),
    ]);
}

#[test]
fn a_restart_rewrites_nothing() {
    check(&[
        ("scan web/a=1 web/b=1", ""),
        ("node seccomp/web_a seccomp/web_b bundle/web", ""),
        ("list web:a=1,b=1", ""),
        ("+9000s", ""),
        ("list web:a=1,b=1", ""),
    ]);
}

#[test]
fn an_edit_rewrites_the_file_and_touches_no_label() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("apply web:a=2", "install web/a=2"),
        ("done", ""),
    ]);
}

#[test]
fn a_bad_new_version_keeps_the_old_one() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=bad", ""),
        ("+9000s", ""),
        ("apply web:a=1", ""),
    ]);
}

#[test]
fn a_bundle_is_labelled_only_when_all_of_it_is_loaded() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1,b=bad", "install web/a=1"),
        ("done", "+seccomp/web_a"),
        ("done", ""),
        ("apply web:a=1,b=1", "install web/b=1"),
        ("fail", "wake 1s"),
        ("+1s", "install web/b=1"),
        ("done", "+bundle/web +seccomp/web_b"),
    ]);
}

#[test]
fn an_empty_bundle_has_no_label() {
    check(&[("scan", ""), ("node", ""), ("list web:", ""), ("node bundle/web", "-bundle/web")]);
}

#[test]
fn a_bundle_with_an_unusable_key_has_no_label() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1,..x=1", "install web/a=1"),
        ("done", "+seccomp/web_a"),
    ]);
}

#[test]
fn a_bundle_keeps_its_label_when_a_profile_leaves_it() {
    check(&[
        ("scan web/a=1 web/b=1", ""),
        ("node seccomp/web_a seccomp/web_b bundle/web", ""),
        ("list web:a=1", "wake 300s"),
        ("+300s", "-seccomp/web_b"),
        ("done", "remove web/b"),
        ("done", ""),
    ]);
}

#[test]
fn what_comes_back_in_time_was_never_away() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=1", ""),
        ("delete web", "wake 300s"),
        ("+299s", "wake 1s"),
        ("apply web:a=1", ""),
        ("+9000s", ""),
    ]);
}

#[test]
fn the_delay_starts_when_the_last_bundle_stops_asking() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("done", ""),
        ("delete web", "wake 300s"),
        ("+200s", "wake 100s"),
        ("list", "wake 100s"),
        ("+100s", "-bundle/web -seccomp/web_a"),
    ]);
}

#[test]
fn a_label_that_the_disk_does_not_justify_is_unset() {
    check(&[
        ("scan web/a=absent web/b=notafile web/c=changed", ""),
        ("node seccomp/web_a seccomp/web_b seccomp/web_c apparmor/x team.bundle/y", ""),
        (
            "list web:a=bad,b=bad,c=bad",
            "-apparmor/x -seccomp/web_a -seccomp/web_b -seccomp/web_c -team.bundle/y",
        ),
    ]);
}

#[test]
fn a_label_with_another_value_is_set_right() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a=false bundle/web", ""),
        ("list web:a=1", "+seccomp/web_a"),
    ]);
}

#[test]
fn what_changed_or_vanished_on_disk_is_put_back() {
    check(&[
        ("scan web/a=absent web/b=changed", ""),
        ("node", ""),
        ("list web:a=1,b=1", "install web/a=1 install web/b=1"),
    ]);
}

#[test]
fn one_change_of_labels_is_under_way_at_most() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("apply new:b=1", "install new/b=1"),
        ("done", ""),
        ("written", "wake 0.2s"),
        ("+1s", "+bundle/new +seccomp/new_b"),
    ]);
}

#[test]
fn a_label_that_may_have_been_set_keeps_its_file() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("done", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("delete web", "wake 300s"),
        ("+300s", ""),
        ("lost", "wake 1s"),
        ("+1s", "-bundle/web -seccomp/web_a"),
        ("done", "remove web/a"),
    ]);
}

#[test]
fn an_old_observation_does_not_count() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list", "wake 300s"),
        ("stale", "wake 300s"),
        ("+300s", "-bundle/web -seccomp/web_a"),
    ]);
}

#[test]
fn a_failed_install_is_retried_more_and_more_slowly() {
    check(&[
        ("scan", ""),
        ("list web:a=1", "install web/a=1"),
        ("fail", "wake 1s"),
        ("+1s", "install web/a=1"),
        ("fail", "wake 2s"),
        ("+2s", "install web/a=1"),
        ("fail", "wake 4s"),
        ("apply web:a=2", "install web/a=2"),
        ("fail", "wake 1s"),
    ]);
}

#[test]
fn a_failed_install_of_an_edit_keeps_the_label_of_the_old_version() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=2", "install web/a=2"),
        ("fail", "wake 1s"),
    ]);
}

#[test]
fn a_failed_removal_is_retried_and_leaves_nothing_to_lean_on() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list", "wake 300s"),
        ("+300s", "remove web/a"),
        ("fail-removal", "wake 1s"),
        ("+1s", "remove web/a"),
        ("fail-removal", "wake 2s"),
        ("apply web:a=1", "install web/a=1"),
    ]);
}

#[test]
fn failed_changes_of_labels_are_retried_more_and_more_slowly() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("lost", "wake 1s"),
        ("+1s", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("lost", "wake 2s"),
    ]);
}

#[test]
fn a_change_of_labels_that_somebody_undoes_is_retried_more_and_more_slowly() {
    check(&[
        ("scan web/a=1", ""),
        ("node", ""),
        ("list web:a=1", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("node", ""),
        ("written", "wake 1s"),
        ("+1s", "+bundle/web +seccomp/web_a"),
        ("send", ""),
        ("node", ""),
        ("written", "wake 2s"),
    ]);
}

#[test]
fn a_foreign_file_is_left_alone_and_not_labelled() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("foreign", "wake 60s"),
        ("+60s", "install web/a=1"),
        ("foreign", "wake 60s"),
        ("apply web:a=2", "install web/a=2"),
        ("foreign", "wake 60s"),
        ("scan", "install web/a=2"),
        ("foreign", "wake 60s"),
        ("delete web", ""),
    ]);
}

#[test]
fn profiles_that_share_a_label_need_all_to_be_loaded() {
    // The shortened label of a long key is the plain label of a key that is chosen to match it.
    let long = "k".repeat(60);
    let label = LabelKey::of_profile(&format!("web/{long}").parse().unwrap());
    let twin = label.as_str().split_once('_').unwrap().1.to_owned();
    assert_eq!(LabelKey::of_profile(&format!("web/{twin}").parse().unwrap()), label);

    check(&[
        ("scan", ""),
        ("node", ""),
        (&format!("list web:{long}=1,{twin}=bad"), &format!("install web/{long}=1")),
        ("done", ""),
    ]);
}

#[test]
fn a_thousand_profiles_are_one_plan_and_one_change_of_labels() {
    let mut scene = Scene::new();
    let bundles = (0..10).map(|bundle| {
        let keys: Vec<String> = (0..100).map(|key| format!("k{key}=1")).collect();
        format!("b{bundle}:{}", keys.join(","))
    });
    let list = bundles.collect::<Vec<_>>().join(" ");
    for line in ["scan", "node", &format!("list {list}")] {
        scene.play(line);
    }
    assert_eq!(scene.state.plan(scene.now).install.len(), 1000);
    scene.play("done");
    assert_eq!(scene.state.plan(scene.now).labels.map(|change| change.set.len()), Some(1010));
    scene.play("done");
    assert_eq!(scene.plan(), "");
}
