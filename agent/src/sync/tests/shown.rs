//! What probes and scrapes are told while the loop runs.

use super::*;

/// The values of these metrics, as they are written.
fn values<'a>(world: &Shared, names: &[&'a str]) -> Vec<(&'a str, String)> {
    let text = world.borrow().status.as_ref().unwrap().metrics.text();
    let value_of = |name: &&'a str| {
        let line = text.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(' '));
        (*name, line.unwrap_or("absent").to_owned())
    };
    names.iter().map(value_of).collect()
}

/// Claims the values of metrics, of which `pavise_` is left out, and of labels `kind`.
fn check(world: &Shared, expected: &[(&str, &str)]) {
    let full = |name: &str| match name.split_once('{') {
        Some((metric, labels)) => format!("pavise_{metric}{{kind=\"seccomp\",{labels}").replace(",}", "}"),
        None => format!("pavise_{name}"),
    };
    let names: Vec<String> = expected.iter().map(|(name, _)| full(name)).collect();
    let found = values(world, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let expected: Vec<(&str, String)> =
        names.iter().zip(expected).map(|(name, (_, value))| (name.as_str(), (*value).to_owned())).collect();
    assert_eq!(found, expected);
}

fn reasons(world: &Shared) -> String {
    world.borrow().status.as_ref().unwrap().reasons().join("; ")
}

#[tokio::test(start_paused = true)]
async fn metrics_count_what_the_log_says() {
    let world = World { failing_installs: 2, ..World::default() };
    play(world, async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x", "y"]));
        tokio::time::sleep(Duration::from_millis(500)).await;
        check(
            &world,
            &[
                ("bundles{}", "2"),
                (r#"profiles{state="desired"}"#, "2"),
                (r#"profiles{state="loaded"}"#, "0"),
                (r#"problems{problem="unwritten"}"#, "2"),
                (r#"installs_total{outcome="failed"}"#, "2"),
            ],
        );
        seconds(5).await;
        world.borrow_mut().drift("x/a", Found::Absent);
        seconds(5).await;
        world.borrow_mut().failing_patches = 1;
        send(&sender, Event::Deleted(BundleId::new("home", "y").unwrap()));
        seconds(1).await;
        check(&world, &[(r#"profiles{state="loaded"}"#, "2"), (r#"profiles{state="retained"}"#, "1")]);
        seconds(310).await;
        check(
            &world,
            &[
                ("bundles{}", "1"),
                (r#"profiles{state="desired"}"#, "1"),
                (r#"profiles{state="loaded"}"#, "1"),
                (r#"profiles{state="retained"}"#, "0"),
                (r#"problems{problem="unwritten"}"#, "0"),
                (r#"installs_total{outcome="failed"}"#, "2"),
                (r#"installs_total{outcome="written"}"#, "3"),
                (r#"removals_total{outcome="removed"}"#, "1"),
                (r"drift_repairs_total{}", "1"),
                (r"sync_latency_seconds_count{}", "2"),
                (r"sync_latency_seconds_sum{}", "2.0"),
            ],
        );
        let changes =
            ["written", "failed"].map(|how| format!("pavise_label_changes_total{{outcome=\"{how}\"}}"));
        let changes = values(&world, &changes.each_ref().map(String::as_str));
        assert_eq!(changes.iter().map(|(_, count)| count.as_str()).collect::<Vec<_>>(), ["2", "1"]);
        // Every act that is told as done is counted.
        assert_eq!(world.borrow().done.len(), 3 + 1 + 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ready_is_who_has_brought_the_node_in_line() {
    let world = World { is_api_server_stuck: true, ..World::default() };
    play(world, async |sender, world| {
        seconds(1).await;
        assert_eq!(
            reasons(&world),
            "namespaces whose bundles are not listed yet: 1; the Node is not seen yet"
        );
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        assert_eq!(reasons(&world), "the labels of the Node are not written yet");
        check(&world, &[("ready", "0")]);
        world.borrow_mut().is_api_server_stuck = false;
        seconds(1).await;
        assert_eq!(reasons(&world), "");
        check(&world, &[("ready", "1")]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn ready_stays_who_loses_the_api_server_and_not_who_can_not_write() {
    play(World::default(), async |sender, world| {
        send(&sender, Event::NodeLabels(NodeLabels::default()));
        send(&sender, listed(&["x"]));
        seconds(1).await;
        assert_eq!(reasons(&world), "");

        world.borrow_mut().is_api_server_stuck = true;
        send(&sender, Event::NodeGone);
        send(&sender, Event::Applied(bundle("y")));
        seconds(1).await;
        assert_eq!(reasons(&world), "");

        world.borrow_mut().failing_installs = 1;
        send(&sender, Event::Applied(bundle("z")));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(reasons(&world), "profiles that can't be written, for reasons in the log: 1");
        seconds(1).await;
        assert_eq!(reasons(&world), "");
    })
    .await;
}
