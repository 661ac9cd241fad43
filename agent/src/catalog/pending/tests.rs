//! The loop, with paused time: what is asked for, and what is written, and when.

use std::rc::Rc;
use std::time::Duration;

use anyhow::bail;
use futures::stream;
use profiles::catalog::pending::Waiting;
use profiles::name::Namespace;
use profiles::pod::{Pod, PodId};

use super::*;
use crate::examples::{PLATFORM, pod_with_seccomp, source};

const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

fn outlines(keys: &[&str]) -> RefCell<Outlines> {
    let namespace = Namespace::new("ns").unwrap();
    let outlines = RefCell::new(Outlines::new(namespace.clone(), []));
    let data: Vec<(&str, &str)> = keys.iter().map(|key| (*key, GOOD)).collect();
    let judged = Judged::of(&source("ns", "web", &data), &[PLATFORM].into());
    note_down(&outlines, &bundles::Seen::Listed(namespace, vec![judged]));
    outlines
}

/// A pod that refers to `web/adit`, and selects on its label.
fn waiting(name: &str) -> Waiting {
    let spec = serde_json::json!({"nodeSelector": {"seccomp.pavise.dev/web_adit": "true"}});
    let selects = Pod::of(&[].into(), &serde_json::from_value(spec.clone()).unwrap(), None).selects;
    let id = PodId { namespace: "shop".to_owned(), name: name.to_owned(), uid: name.to_owned() };
    let pod = Pod { selects, ..pod_with_seccomp("web/adit") };
    Waiting::of(id, None, pod, serde_json::from_value(spec).unwrap()).unwrap()
}

fn after(seconds: u64, seen: Seen) -> impl Stream<Item = Seen> {
    stream::once(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        seen
    })
}

/// Runs for `duration` while these `pods` are seen. A look at the Nodes takes a second and finds what `nodes`
/// says for the nth of them, a write takes a second. Returns when Nodes were looked at, and when which pod was
/// written about.
async fn explained_for(
    duration: Duration,
    pods: impl Stream<Item = Seen>,
    outlines: &RefCell<Outlines>,
    nodes: impl Fn(usize) -> Result<Vec<Node>> + 'static,
) -> (Vec<u64>, Vec<(u64, String)>) {
    let started = Instant::now();
    let (looks, writes) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let (looked, log) = (looks.clone(), writes.clone());
    let list = move |keys: Arc<BTreeSet<String>>| {
        assert!(keys.contains("seccomp.pavise.dev/web_adit"));
        looked.borrow_mut().push(started.elapsed().as_secs());
        let found = nodes(looked.borrow().len());
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            found
        }
        .boxed_local()
    };
    let write = move |write: Write| {
        let log = log.clone();
        async move {
            log.borrow_mut().push((started.elapsed().as_secs(), write.statement.subject.name.clone()));
            tokio::time::sleep(Duration::from_secs(1)).await;
            Outcome::Said
        }
        .boxed_local()
    };
    let loop_of_it = run(pods.chain(stream::pending()), outlines, list, write);
    tokio::time::timeout(duration, loop_of_it).await.unwrap_err();
    (looks.take(), writes.take())
}

fn bare() -> Vec<Node> {
    vec![Node::new("n1".to_owned(), [].into())]
}

fn named(names: &[(u64, &str)]) -> Vec<(u64, String)> {
    names.iter().map(|(at, name)| (*at, (*name).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn nodes_are_asked_for_only_while_a_pod_waits() {
    let pods = after(0, Seen::Listed)
        .chain(after(100, Seen::Applied(waiting("p"))))
        .chain(after(30, Seen::Deleted(waiting("p").id().clone())));
    let (looks, writes) =
        explained_for(Duration::from_hours(2), pods, &outlines(&["audit"]), |_| Ok(bare())).await;
    assert_eq!((looks, writes), (vec![105, 121], named(&[(106, "p")])));
}

#[tokio::test(start_paused = true)]
async fn one_write_is_under_way_and_who_is_gone_meanwhile_is_not_spoken_of() {
    let found = ["p", "q", "r"].map(|name| Seen::Found(waiting(name)));
    let list = stream::iter([Seen::Listing].into_iter().chain(found).chain([Seen::Listed]));
    // The look ends at 6 s, and the first write at 7 s.
    let pods = list.chain(stream::once(async {
        tokio::time::sleep(Duration::from_millis(6_500)).await;
        Seen::Deleted(waiting("q").id().clone())
    }));
    let (_, writes) = explained_for(Duration::from_mins(10), pods, &outlines(&[]), |_| Ok(bare())).await;
    assert_eq!(writes, named(&[(6, "p"), (7, "r")]));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_can_not_be_listed_are_asked_for_again() {
    let pods = after(0, Seen::Applied(waiting("p")));
    let failing = |nth| if nth < 3 { bail!("nodes is forbidden") } else { Ok(bare()) };
    let (looks, writes) = explained_for(Duration::from_mins(1), pods, &outlines(&[]), failing).await;
    assert_eq!((&looks[..3], writes), (&[5, 21, 37][..], named(&[(38, "p")])));
}

#[tokio::test(start_paused = true)]
async fn what_is_seen_of_bundles_meanwhile_is_what_is_said() {
    let (outlines, pods) = (outlines(&["audit"]), after(0, Seen::Applied(waiting("p"))));
    let id = profiles::bundle::BundleId::new("ns", "web").unwrap();
    let edit = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let judged = Judged::of(&source("ns", "web", &[("adit", GOOD)]), &[PLATFORM].into());
        note_down(&outlines, &bundles::Seen::Applied(judged));
        tokio::time::sleep(Duration::from_mins(1)).await;
        note_down(&outlines, &bundles::Seen::Deleted(id));
    };
    let explained = explained_for(Duration::from_mins(2), pods, &outlines, |_| Ok(bare()));
    let ((_, writes), ()) = tokio::join!(explained, edit);
    // Did you mean audit? It is not loaded. There is no such bundle.
    assert_eq!(writes, named(&[(6, "p"), (53, "p"), (114, "p")]));
}
