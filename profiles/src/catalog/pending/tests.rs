//! Who is told why it waits, and when: a story of pods and Nodes, with simulated time.

use super::*;
use crate::bundle::Source;
use crate::catalog::asking::Judged;
use crate::catalog::outline::Outlines;
use crate::label::{LABEL_VALUE, LabelKey};
use crate::name::Namespace;
use crate::platform::Platform;
use crate::pod::ContainerKind;
use crate::saying::How;

const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

fn outlines(keys: &[&str]) -> Outlines {
    let namespace = Namespace::new("ns").unwrap();
    let data: Vec<(&str, &str)> = keys.iter().map(|key| (*key, GOOD)).collect();
    let judged = Judged::of(&Source::example("web", &data), &[Platform::EXAMPLE].into());
    let mut outlines = Outlines::new(namespace.clone(), []);
    outlines.listed(&namespace, &[judged]);
    outlines
}

fn id(name: &str) -> PodId {
    PodId { namespace: "shop".to_owned(), name: name.to_owned(), uid: format!("uid-of-{name}") }
}

/// A pod that refers to the profile `key` of the bundle `web`, and selects on its label.
fn waiting(name: &str, owner: Option<&str>, key: &str) -> Waiting {
    waiting_on(name, owner, key, &[])
}

/// The same, which asks for these labels too, whatever their value.
fn waiting_on(name: &str, owner: Option<&str>, key: &str, others: &[String]) -> Waiting {
    let container = |seccomp: Asked| Container {
        name: "c".to_owned(),
        kind: ContainerKind::Regular,
        is_privileged: false,
        seccomp,
        apparmor: Asked::Nothing,
        running: None,
    };
    let label = format!("seccomp.pavise.dev/web_{key}");
    let selects = LabelKey::observed(&label).into_iter().collect();
    let containers = vec![container(Asked::Nothing), container(Asked::Localhost(format!("web/{key}")))];
    let pod = Pod { containers, selects, ..Pod::default() };
    let exists = |key: &String| serde_json::json!({"key": key, "operator": "Exists"});
    let terms: serde_json::Value = match others {
        [] => serde_json::Value::Null,
        _ => serde_json::json!({"nodeSelectorTerms": [
            {"matchExpressions": others.iter().map(exists).collect::<serde_json::Value>()},
        ]}),
    };
    let constraints = serde_json::json!({
        "nodeSelector": {label: LABEL_VALUE},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
    });
    Waiting::of(id(name), owner.map(str::to_owned), pod, serde_json::from_value(constraints).unwrap())
        .unwrap()
}

/// A Node with the labels of these profiles of the bundle `web`.
fn node(name: &str, keys: &[&str]) -> Node {
    let label = |key: &&str| (format!("seccomp.pavise.dev/web_{key}"), LABEL_VALUE.to_owned());
    Node::new(name.to_owned(), keys.iter().map(label).collect())
}

/// The catalog, its pods, and what the API server has.
struct Scene {
    pending: Pending,
    outlines: Outlines,
    nodes: Option<Vec<Node>>,
    now: Time,
    /// When Nodes were looked at, in seconds.
    looks: Vec<u64>,
    /// When what was written about which pod, and how.
    writes: Vec<(u64, String, How)>,
    notes: BTreeSet<String>,
    /// The Events that there are.
    events: BTreeMap<String, u32>,
}

impl Scene {
    /// With these pods when it starts, a Node that has the profile `a`, and the profiles `a` and `audit`.
    fn new(pods: &[Waiting]) -> Self {
        let mut scene = Self {
            pending: Pending::default(),
            outlines: outlines(&["a", "audit"]),
            nodes: Some(vec![node("n1", &["a"])]),
            now: Time::default(),
            looks: Vec::new(),
            writes: Vec::new(),
            notes: BTreeSet::new(),
            events: BTreeMap::new(),
        };
        scene.list(pods);
        scene
    }

    fn list(&mut self, pods: &[Waiting]) {
        self.pending.listing();
        pods.iter().cloned().for_each(|pod| self.pending.found(pod));
        self.pending.listed(self.now);
    }

    fn apply(&mut self, waiting: Waiting) {
        self.pending.applied(waiting, self.now);
    }

    /// Lets time pass, in which the API server takes everything.
    fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let todo = self.pending.todo(self.now);
            if todo.look {
                self.looks.push(self.now.elapsed().as_secs());
                let mut look = self.pending.look(self.outlines.bundles(), self.now);
                while !self.looked(&mut look) {}
            } else if let Some(write) = todo.write {
                self.write(&write);
            } else {
                match todo.wake_at {
                    Some(at) if at <= end => self.now = at,
                    _ => break,
                }
            }
        }
        self.now = end;
    }

    /// Goes on with `look`; returns whether it has ended.
    fn looked(&mut self, look: &mut Look) -> bool {
        self.pending.looked(look, self.nodes.as_deref(), self.outlines.bundles(), self.now)
    }

    fn write(&mut self, write: &Write) {
        let (name, how) = (write.statement.name(), write.how);
        let outcome = match (how, self.events.get(&name)) {
            (How::First, Some(count)) => Outcome::WasSaid(*count, Duration::ZERO),
            (How::First, None) | (How::Again(_), _) => Outcome::Said,
        };
        if outcome == Outcome::Said {
            *self.events.entry(name).or_default() += 1;
            let pod = write.statement.subject.name.clone();
            self.writes.push((self.now.elapsed().as_secs(), pod, how));
            self.notes.insert(write.statement.note.clone());
        }
        self.pending.written(write, outcome, self.now);
    }

    /// Claims when was written about which pod, and how often that was seen then; and forgets it.
    fn expect(&mut self, expected: &[(u64, &str, u32)]) {
        let count = |how| match how {
            How::First => 1,
            How::Again(count) => count,
        };
        let writes: Vec<(u64, &str, u32)> =
            self.writes.iter().map(|(at, pod, how)| (*at, pod.as_str(), count(*how))).collect();
        assert_eq!(writes, expected);
        self.writes.clear();
    }
}

#[test]
fn what_a_pod_waits_for_is_said_after_five_seconds_and_again_every_half_hour() {
    let mut scene = Scene::new(&[]);
    scene.pass(100);
    scene.apply(waiting("p", None, "adit"));
    scene.pass(3700);
    scene.expect(&[(105, "p", 1), (1905, "p", 2), (3705, "p", 3)]);
    assert_eq!(scene.looks[..7], [105, 120, 150, 210, 330, 450, 570]);
    let note = "the bundle ns/web has no key adit; did you mean web/audit? Correct the reference";
    assert!(scene.notes.iter().all(|one| one.contains(note)) && scene.notes.len() == 1, "{:?}", scene.notes);
}

#[test]
fn a_pod_that_finds_its_node_in_time_is_not_even_looked_at() {
    let mut scene = Scene::new(&[]);
    for _ in 0..20 {
        scene.apply(waiting("p", None, "adit"));
        scene.pass(4);
        scene.pending.deleted(&id("p"));
    }
    scene.pass(100);
    scene.expect(&[]);
    assert!(scene.looks.is_empty());
}

#[test]
fn what_is_put_right_is_not_said_any_more() {
    let mut scene = Scene::new(&[]);
    scene.apply(waiting("p", None, "adit"));
    scene.pass(60);
    scene.expect(&[(5, "p", 1)]);
    // It has a Node that it waits for with all others.
    scene.nodes = Some(vec![node("n1", &["a", "adit"])]);
    scene.pass(7200);
    scene.expect(&[]);
    scene.nodes = Some(vec![node("n1", &["a"])]);
    scene.pass(121);
    assert_eq!(scene.writes.len(), 1);
    scene.pending.deleted(&id("p"));
    scene.writes.clear();
    scene.pass(7200);
    scene.expect(&[]);
}

#[test]
fn another_reason_is_another_event() {
    let mut scene = Scene::new(&[]);
    scene.apply(waiting("p", None, "adit"));
    scene.pass(10);
    scene.outlines = outlines(&["a", "adit"]);
    scene.pass(15);
    scene.expect(&[(5, "p", 1), (20, "p", 1)]);
    assert_eq!((scene.notes.len(), scene.events.len()), (2, 2));
    assert!(scene.notes.iter().any(|note| note.contains("ns/web has it, and it is not loaded there")));
}

#[test]
fn a_restart_says_nothing_twice() {
    let mut scene = Scene::new(&[]);
    scene.apply(waiting("p", None, "adit"));
    scene.pass(10);
    scene.expect(&[(5, "p", 1)]);
    scene.pending = Pending::default();
    scene.list(&[waiting("p", None, "adit")]);
    scene.pass(600);
    scene.expect(&[]);
    // A list after a broken watch is no start.
    scene.list(&[waiting("p", None, "adit"), waiting("q", None, "adit")]);
    scene.pass(10);
    scene.expect(&[(615, "q", 1)]);
}

#[test]
fn of_one_owner_s_pods_the_first_three_are_spoken_of() {
    let names: Vec<String> = (10..99).map(|n| format!("p{n}")).collect();
    let pods: Vec<Waiting> = names.iter().map(|name| waiting(name, Some("rs"), "adit")).collect();
    let mut scene = Scene::new(&pods);
    assert_eq!(scene.pending.pods.len(), MOST_OF_OWNER);
    scene.apply(waiting("other", Some("another"), "adit"));
    scene.apply(waiting("p99", Some("rs"), "adit"));
    scene.apply(waiting("single", None, "adit"));
    scene.pass(20);
    let said = |at| [(at, "other", 1), (at, "p10", 1), (at, "p11", 1), (at, "p12", 1), (at, "single", 1)];
    scene.expect(&said(5));
    // Who was spoken of first stays so, and another one follows who is gone.
    scene.pending.deleted(&id("p12"));
    scene.apply(waiting("p00", Some("rs"), "adit"));
    scene.pass(30);
    scene.expect(&[(35, "p00", 1)]);
}

#[test]
fn who_is_known_stays_so_when_a_list_comes_in_another_order() {
    let pods = |range: std::ops::Range<usize>| {
        range.map(|n| waiting(&format!("p{n:02}"), Some("rs"), "adit")).collect::<Vec<_>>()
    };
    let known = |scene: &Scene| scene.pending.pods.keys().map(|id| id.name.clone()).collect::<Vec<_>>();
    let mut scene = Scene::new(&pods(40..40 + MOST_OF_OWNER));
    let before = known(&scene);
    scene.list(&pods(30..60));
    assert_eq!(known(&scene), before);
    // A list that breaks off changes nothing, and who is gone with a list leaves its room to others.
    scene.pending.listing();
    scene.pending.found(pods(41..42).remove(0));
    scene.list(&pods(41..60));
    let after = [&before[1..], &["p56".to_owned()]].concat();
    assert_eq!(known(&scene), after);
    scene.list(&pods(20..60));
    assert_eq!(known(&scene), after);
    scene.list(&pods(60..90));
    let others: Vec<String> = (60..60 + MOST_OF_OWNER).map(|n| format!("p{n}")).collect();
    assert_eq!(known(&scene), others);
}

#[test]
fn an_owner_is_one_of_its_namespace() {
    let elsewhere = |n| {
        let mut pod = waiting(&format!("e{n}"), Some("rs"), "adit");
        pod.id.namespace = "elsewhere".to_owned();
        pod
    };
    let mut pods: Vec<Waiting> = (0..MOST_OF_OWNER).map(elsewhere).collect();
    pods.push(waiting("p", Some("rs"), "adit"));
    let mut scene = Scene::new(&pods);
    scene.pass(10);
    scene.expect(&[(5, "e0", 1), (5, "e1", 1), (5, "e10", 1), (5, "p", 1)]);
}

#[test]
fn no_more_pods_are_known_than_anybody_reads() {
    let pods = (0..MOST + 10).map(|n| {
        let mut pod = waiting(&format!("p{n}"), None, "adit");
        if n > 0 {
            pod.id.namespace = format!("ns{}", n % 10);
        }
        pod
    });
    let pods: Vec<Waiting> = pods.collect();
    let mut scene = Scene::new(&pods);
    assert_eq!(scene.pending.pods.len(), MOST);
    scene.apply(waiting("new", None, "adit"));
    assert_eq!(scene.pending.pods.len(), MOST);
    scene.pending.deleted(&id("p0"));
    scene.apply(waiting("new", None, "adit"));
    assert!(scene.pending.pods.contains_key(&id("new")));
}

#[test]
fn a_namespace_full_of_pods_leaves_room_for_others() {
    let mut pods: Vec<Waiting> = (0..MOST).map(|n| waiting(&format!("p{n}"), None, "adit")).collect();
    let mut other = waiting("other", None, "adit");
    other.id.namespace = "elsewhere".to_owned();
    pods.push(other.clone());
    let mut scene = Scene::new(&pods);
    assert_eq!(scene.pending.pods.len(), MOST_OF_NAMESPACE + 1);
    scene.apply(waiting("new", None, "adit"));
    assert!(!scene.pending.pods.contains_key(&id("new")) && scene.pending.pods.contains_key(&other.id));
}

#[test]
fn nodes_that_can_not_be_listed_change_nothing() {
    let mut scene = Scene::new(&[]);
    scene.apply(waiting("p", None, "adit"));
    let nodes = scene.nodes.take();
    scene.pass(40);
    scene.expect(&[]);
    scene.nodes = nodes;
    scene.pass(20);
    scene.expect(&[(50, "p", 1)]);
    scene.nodes = None;
    scene.pass(1800);
    scene.expect(&[(1850, "p", 2)]);
}

#[test]
fn a_look_without_an_answer_is_repeated_after_a_pause() {
    let mut scene = Scene::new(&[waiting("p", None, "adit")]);
    let at = |seconds| Time::since_start(Duration::from_secs(seconds));
    let mut look = scene.pending.look(scene.outlines.bundles(), at(5));
    assert!(scene.pending.looked(&mut look, None, scene.outlines.bundles(), at(35)));
    let todo = scene.pending.todo(at(35));
    assert_eq!((todo.look, todo.wake_at), (false, Some(at(35) + PAUSE)));
}

#[test]
fn what_is_kept_of_a_pod_is_bounded_and_of_one_without_our_labels_nothing() {
    let of = |selector: serde_json::Value| {
        let spec = serde_json::json!({"nodeSelector": selector, "containers": [{"name": "c"}]});
        let pod = Pod::of(&BTreeMap::new(), &serde_json::from_value(spec.clone()).unwrap(), None);
        Waiting::of(id("p"), None, pod, serde_json::from_value(spec).unwrap())
    };
    let label = "seccomp.pavise.dev/web_a";
    let kept = of(serde_json::json!({label: "true", "pool": "a"})).unwrap();
    assert_eq!(kept.pod.containers.len(), 0, "a container that refers to nothing is kept");
    assert!(of(serde_json::json!({"pool": "a"})).is_none());
    assert!(of(serde_json::json!({label: "true", "pool": "a".repeat(LARGEST)})).is_none());
    let asking = |count: usize| {
        let keys = (0..count).map(|n| (n.to_string(), serde_json::Value::from("")));
        of(keys.chain([(label.to_owned(), "true".into())]).collect())
    };
    // The operating system is asked for in any case.
    assert!(asking(MOST_ASKED - 1).is_some() && asking(MOST_ASKED).is_none());
    let short = (0..200).map(|n| (format!("bundle.pavise.dev/{n}"), serde_json::Value::from("")));
    assert!(of(short.collect()).is_none(), "of short keys there can be many");
    let owned = |length| {
        let Waiting { id, pod, constraints, .. } = kept.clone();
        Waiting::of(id, Some("u".repeat(length)), pod, constraints)
    };
    assert!(owned(36).is_some() && owned(LARGEST).is_none());
    let many = (0..200).map(|n| (format!("bundle.pavise.dev/{n}{}", "b".repeat(40)), "true".into()));
    assert!(of(serde_json::Value::Object(many.collect())).is_none());
}

#[test]
fn a_look_is_about_the_labels_that_matter() {
    let mut scene = Scene::new(&[waiting("p", None, "adit")]);
    scene.now = Time::since_start(PATIENCE);
    let look = scene.pending.look(scene.outlines.bundles(), scene.now);
    for key in ["seccomp.pavise.dev/web_adit", "kubernetes.io/os"] {
        assert!(look.keys().contains(key), "{key}");
    }
    for key in ["seccomp.pavise.dev/web_a", "node.kubernetes.io/instance-type", "bundle.pavise.dev/other"] {
        assert!(!look.keys().contains(key), "{key}");
    }
}

#[test]
fn pods_do_not_decide_how_many_labels_a_look_is_about_and_all_have_their_turn() {
    let asked = |pod: usize| (0..20).map(|n| format!("example.com/{pod}-{n}")).collect::<Vec<String>>();
    let pods = (0..6).map(|n| waiting_on(&format!("p{n}"), None, "adit", &asked(n)));
    let mut scene = Scene::new(&pods.chain([waiting("plain", None, "adit")]).collect::<Vec<_>>());
    scene.now = Time::since_start(PATIENCE);
    let look = scene.pending.look(scene.outlines.bundles(), scene.now);
    let others = look.keys().iter().filter(|key| !LabelKey::is_ours(key)).count();
    assert!(others <= MOST_ASKED, "{others}");
    assert_eq!(look.pods.iter().map(|id| id.name.as_str()).collect::<Vec<_>>(), ["p0", "plain"]);
    scene.pending.is_looking = false;
    scene.pass(100);
    // A reference that no bundle has is told, whatever else the pod asks for.
    let each = [(20, "p0"), (20, "plain"), (35, "p1"), (50, "p2"), (65, "p3"), (80, "p4"), (95, "p5")];
    scene.expect(&each.map(|(at, pod)| (at, pod, 1)));
}

#[test]
fn a_bundle_that_asks_for_another_label_during_a_look_is_judged_with_the_next() {
    let mut scene = Scene::new(&[waiting("p", None, "a")]);
    scene.nodes = Some(vec![node("n1", &[])]);
    scene.now = Time::since_start(PATIENCE);
    let mut look = scene.pending.look(scene.outlines.bundles(), scene.now);
    let annotations = [("pavise.dev/node-selector".to_owned(), "pool=canary".to_owned())].into();
    let canary = Source { annotations, ..Source::example("web", &[("a", GOOD)]) };
    scene.outlines.applied(&Judged::of(&canary, &[Platform::EXAMPLE].into()));
    assert!(scene.looked(&mut look));
    scene.nodes.as_mut().unwrap()[0].others.insert("pool".to_owned(), "canary".to_owned());
    scene.pass(60);
    scene.expect(&[(20, "p", 1)]);
    assert!(scene.notes.iter().all(|note| note.contains("it is not loaded there")), "{:?}", scene.notes);
}

#[test]
fn a_look_at_many_pods_ends_when_all_were_looked_at_and_then_all_are_told() {
    let names: Vec<String> = (0..=3 * MOST_AT_A_TIME).map(|n| format!("p{n:02}")).collect();
    let pods: Vec<Waiting> = names.iter().map(|name| waiting(name, None, "adit")).collect();
    let mut scene = Scene::new(&pods);
    scene.now = Time::since_start(PATIENCE);
    let mut look = scene.pending.look(scene.outlines.bundles(), scene.now);
    for _ in 0..3 {
        assert!(!scene.looked(&mut look));
        assert_eq!(scene.pending.todo(scene.now), Todo::default());
    }
    assert!(scene.looked(&mut look));
    scene.pass(1);
    assert_eq!(scene.writes.len(), pods.len());
}
