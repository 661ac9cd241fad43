//! The startup taint, in the loop.

use super::*;

fn tainted() -> World {
    World { startup_taints: [0].into(), ..World::default() }
}

#[tokio::test(start_paused = true)]
async fn the_taint_goes_when_all_is_loaded_and_labelled() {
    let done = play(tainted(), async |sender, world| {
        send(&sender, Event::NodeListed(seen(&world.borrow())));
        send(&sender, listed(&["x", "y"]));
        seconds(300).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "install y/a", "labels +4 -0", "untaint []"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_profile_does_not_hold_the_node_up() {
    let done = play(tainted(), async |sender, world| {
        send(&sender, Event::NodeListed(seen(&world.borrow())));
        let bundles = vec![bundle("x"), with_content("y", "{}")];
        send(&sender, Event::Listed { namespace: Namespace::new("home").unwrap(), bundles });
        seconds(1).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "labels +2 -0", "untaint []"]);
}

#[tokio::test(start_paused = true)]
async fn after_two_minutes_the_taint_goes_without_its_profiles() {
    let world = World { failing_installs: 9, ..tainted() };
    let done = play(world, async |sender, world| {
        seconds(30).await;
        send(&sender, Event::NodeListed(seen(&world.borrow())));
        send(&sender, listed(&["x"]));
        seconds(119).await;
        assert!(world.borrow().done.is_empty());
        seconds(2).await;
        assert_eq!(world.borrow().done, ["untaint [Retries(1)]"]);
        seconds(300).await;
    })
    .await;
    assert_eq!(done, ["untaint [Retries(1)]", "install x/a", "labels +2 -0"]);
}

#[tokio::test(start_paused = true)]
async fn a_taint_that_comes_later_goes_at_once_and_a_node_without_one_is_left_alone() {
    let done = play(World::default(), async |sender, world| {
        send(&sender, Event::NodeListed(seen(&world.borrow())));
        send(&sender, listed(&["x"]));
        seconds(3_600).await;
        assert_eq!(world.borrow().done.len(), 2);
        world.borrow_mut().failing_patches = 2;
        world.borrow_mut().startup_taints = [1].into();
        send(&sender, Event::NodeListed(seen(&world.borrow())));
        seconds(2).await;
        assert_eq!(world.borrow().done.len(), 2);
        seconds(2).await;
        assert_eq!(world.borrow().done.len(), 3);
        seconds(3_600).await;
    })
    .await;
    assert_eq!(done, ["install x/a", "labels +2 -0", "untaint []"]);
}

#[tokio::test(start_paused = true)]
async fn run_once_the_taint_is_taken_away_before_the_end() {
    let world = tainted();
    let node = Event::NodeListed(seen(&world));
    let (done, outcome) = play_once(world, vec![node, listed(&["x"])]).await;
    assert_eq!((done.last().map(String::as_str), outcome), (Some("untaint []"), Some(true)));
}
