//! The rules about files that somebody changed.

use std::time::Duration;

use super::scene::{Scene, check};

#[test]
fn a_drift_that_is_repaired_touches_no_label() {
    for drift in ["changed", "absent", "notafile"] {
        check(&[
            ("scan web/a=1", ""),
            ("node seccomp/web_a bundle/web", ""),
            ("list web:a=1", ""),
            (&format!("scan web/a={drift}"), "install web/a=1"),
            ("done", ""),
            ("scan web/a=1", ""),
        ]);
    }
}

#[test]
fn a_drift_that_can_not_be_repaired_takes_the_label_away() {
    let down = "-bundle/web -seccomp/web_a";
    let begin = [("scan web/a=1", ""), ("node seccomp/web_a bundle/web", "")];
    let check_after = |script: &[(&str, &str)]| check(&[&begin, script].concat());
    check_after(&[
        ("list web:a=1", ""),
        ("scan web/a=notafile", "install web/a=1"),
        ("foreign", &format!("{down} wake 60s")),
    ]);
    check_after(&[
        ("list web:a=1", ""),
        ("scan web/a=changed", "install web/a=1"),
        ("fail-owned", &format!("{down} wake 1s")),
    ]);
    check_after(&[("list web:a=bad", "keep web/a"), ("scan web/a=changed", down)]);
    check_after(&[
        ("list web:a=bad", "keep web/a"),
        ("done", ""),
        ("scan web/a=notafile", "install web/a=1"),
        ("foreign", &format!("{down} wake 60s")),
    ]);
    check_after(&[("list", "wake 300s"), ("scan web/a=changed", &format!("{down} wake 300s"))]);
}

#[test]
fn a_drift_of_the_version_before_a_refused_one_is_repaired() {
    for drift in ["changed", "absent", "notafile"] {
        let scan = &format!("scan web/a={drift}");
        // The first as a restart finds it.
        let begin = [("scan web/a=1", ""), ("node seccomp/web_a bundle/web", "")];
        let check_after = |script: &[(&str, &str)]| check(&[&begin, script].concat());
        check_after(&[
            ("list web:a=bad", "keep web/a"),
            ("done", ""),
            (scan, "install web/a=1"),
            ("done", ""),
            ("scan web/a=1", ""),
            (scan, "install web/a=1"),
            ("fail-owned", "-bundle/web -seccomp/web_a wake 1s"),
            ("apply web:a=2", "install web/a=2"),
        ]);
        check_after(&[
            ("list web:a=1", ""),
            ("apply web:a=2", "install web/a=2"),
            ("fail", "wake 1s"),
            ("apply web:a=bad", "keep web/a"),
            ("done", ""),
            (scan, "install web/a=1"),
            ("done", ""),
            ("apply web:a=2", "install web/a=2"),
            ("done", ""),
            ("apply web:a=bad", ""),
            (scan, "install web/a=2"),
        ]);
    }
}

#[test]
fn what_can_not_be_read_is_read_again_more_and_more_slowly() {
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=bad", "keep web/a"),
        ("fail-keep", "wake 1s"),
        ("scan web/a=1", "wake 1s"),
        ("+1s", "keep web/a"),
        ("fail-keep", "wake 2s"),
        ("list", "wake 300s"),
        ("list web:a=bad", "keep web/a"),
    ]);
}

#[test]
fn what_nobody_asks_for_is_not_kept() {
    check(&[
        ("scan web/a=1", ""),
        ("list web:a=bad", "keep web/a"),
        ("done", ""),
        ("list", "wake 300s"),
        ("scan web/a=absent", "wake 300s"),
        ("list web:a=bad", ""),
    ]);
}

#[test]
fn a_scan_without_news_does_not_hasten_what_failed() {
    for (drift, outcome, wake) in [("changed", "fail-owned", "wake 1s"), ("notafile", "foreign", "wake 60s")]
    {
        let scan = format!("scan web/a={drift}");
        check(&[
            ("scan web/a=1", ""),
            ("list web:a=1", ""),
            (&scan, "install web/a=1"),
            (outcome, wake),
            (&scan, wake),
            ("scan web/a=absent", "install web/a=1"),
        ]);
    }
    check(&[
        ("scan", ""),
        ("list web:a=1", "install web/a=1"),
        ("fail", "wake 1s"),
        ("scan", "wake 1s"),
        ("+1s", "install web/a=1"),
        ("fail", "wake 2s"),
        ("scan", "wake 2s"),
    ]);
}

#[test]
fn a_lasting_fight_over_a_file_costs_a_write_a_minute() {
    let mut scene = Scene::new();
    for line in ["scan web/a=1", "node", "list web:a=1"] {
        scene.play(line);
    }
    let mut writes = 0;
    while scene.now.elapsed() < Duration::from_hours(1) {
        if !scene.state.plan(scene.now).install.is_empty() {
            scene.play("done");
            writes += 1;
        }
        scene.now = scene.now + Duration::from_millis(100);
        scene.play("scan web/a=changed");
    }
    assert!((60..80).contains(&writes), "{writes} writes in an hour");
}

#[test]
fn drifts_that_are_rare_are_repaired_at_once_each_time() {
    let mut scene = Scene::new();
    for line in ["scan web/a=1", "list web:a=1"] {
        scene.play(line);
    }
    for _ in 0..100 {
        scene.play("scan web/a=changed");
        assert_eq!(scene.plan(), "install web/a=1");
        scene.play("done");
        scene.play("+120s");
    }
}

#[test]
fn a_drift_that_waits_for_its_repair_is_repaired_also_when_a_newer_version_is_refused() {
    for (drift, outcome) in [("changed", "fail-owned"), ("absent", "fail-owned"), ("notafile", "foreign")] {
        let scan = &format!("scan web/a={drift}");
        check(&[
            ("scan web/a=1", ""),
            ("list web:a=1", ""),
            (scan, "install web/a=1"),
            (outcome, if outcome == "foreign" { "wake 60s" } else { "wake 1s" }),
            ("apply web:a=bad", "install web/a=1"),
            ("done", ""),
        ]);
    }
    // What was never there is not put there by a refusal.
    check(&[
        ("scan", ""),
        ("list web:a=1", "install web/a=1"),
        ("fail-owned", "wake 1s"),
        ("apply web:a=bad", ""),
    ]);
    check(&[
        ("scan web/a=1", ""),
        ("list web:a=2", "install web/a=2"),
        ("fail-owned", "wake 1s"),
        ("scan web/a=changed", "install web/a=2"),
        ("fail-owned", "wake 1s"),
        ("apply web:a=bad", ""),
    ]);
}

#[test]
fn what_a_failed_write_left_is_not_leant_on_before_it_is_durable() {
    check(&[
        ("scan", ""),
        ("node", ""),
        ("list web:a=1", "install web/a=1"),
        ("fail-owned", "wake 1s"),
        ("scan web/a=1", "wake 1s"),
        ("+1s", "install web/a=1"),
        ("done", "+bundle/web +seccomp/web_a"),
    ]);
    check(&[
        ("scan web/a=1", ""),
        ("node seccomp/web_a bundle/web", ""),
        ("list web:a=2", "install web/a=2"),
        ("fail-owned", "wake 1s"),
        ("scan web/a=2", "-bundle/web -seccomp/web_a wake 1s"),
        ("scan web/a=2", "-bundle/web -seccomp/web_a wake 1s"),
        ("apply web:a=1", "install web/a=1"),
    ]);
}
