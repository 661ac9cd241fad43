//! What is declared, when it goes, and that a restart changes nothing of it. `ns` is the home namespace.

use proptest::collection::vec;
use proptest::prelude::any;

use super::*;
use crate::catalog::object::ProfileCatalog;
use crate::diagnostic::{Code, Place};
use crate::platform::Platform;
use crate::seed::runner;
use crate::verdicts::Verdicts;

const DELAY: Duration = Duration::from_mins(5);
const NAMESPACES: [&str; 2] = ["ns", "team"];

fn at(seconds: u64) -> Time {
    Time::since_start(Duration::from_secs(seconds))
}

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// Nothing but what the object held at the start is known.
fn started(found: Option<&Status>) -> Declaring {
    let mut declaring = Declaring::new(namespace("ns"), [namespace("team")].into(), DELAY);
    declaring.found(found);
    declaring
}

/// Nothing is there but these bundles, which are known.
fn with(bundles: &[Declared]) -> Declaring {
    let mut declaring = started(None);
    list(&mut declaring, &NAMESPACES, bundles);
    declaring
}

fn list(declaring: &mut Declaring, namespaces: &[&str], bundles: &[Declared]) {
    for name in namespaces {
        let of_it = bundles.iter().filter(|bundle| bundle.id.namespace.as_str() == *name);
        declaring.listed(&namespace(name), of_it.cloned());
    }
}

/// The ConfigMap `name` (`team/web`, or `web` in `ns`), which was made in this second.
fn source(name: &str, created: i64, data: &[(&str, &str)]) -> Source {
    let (namespace, name) = name.split_once('/').unwrap_or(("ns", name));
    let id = BundleId::new(namespace, name).unwrap();
    Source { id, created: Some(created), ..Source::example(name, data) }
}

fn seccomp(name: &str, created: i64, keys: &[&str]) -> Declared {
    let data: Vec<(&str, &str)> = keys.iter().map(|key| (*key, "{}")).collect();
    Declared::of(&source(name, created, &data), None)
}

fn apparmor(name: &str, created: i64, texts: &[&str]) -> Declared {
    let keys: Vec<String> = (0..texts.len()).map(|number| format!("k{number}")).collect();
    let data: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(texts.iter().copied()).collect();
    let source = Source { kind: "apparmor".to_owned(), ..source(name, created, &data) };
    let judged = Bundle::of(source.clone(), &mut Verdicts::new(Platform::EXAMPLE));
    let declared = Declared::of(&source, Some(&judged));
    assert_eq!(declared, Declared::of(&source, None), "judging changes what is declared");
    declared
}

/// One with more keys than a bundle may have.
fn unreadable(kind: &str, name: &str, created: i64) -> Declared {
    let keys: Vec<String> = (0..=MOST_KEYS).map(|number| format!("k{number}")).collect();
    let data: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
    Declared::of(&Source { kind: kind.to_owned(), ..source(name, created, &data) }, None)
}

/// As many keys, `k0` and so on.
fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("k{number}")).collect()
}

/// An AppArmor text that declares these profiles.
fn declaring_names(names: &[String]) -> String {
    names.iter().fold(String::new(), |text, name| text + "profile " + name + " {\n}\n")
}

/// As `bundle` with the annotation that says so.
fn by_bundle(mut bundle: Declared) -> Declared {
    bundle.has_profile_labels = false;
    bundle
}

/// The compiler accepts what `declared` has.
fn accept(declaring: &mut Declaring, declared: &Declared) {
    for text in declared.clone().texts() {
        declaring.compiled(text.digest.unwrap(), &[]);
    }
}

/// The object, with `=` between reference and label, and AppArmor names after seccomp references.
fn shown(declaring: &mut Declaring, seconds: u64) -> Vec<String> {
    let status = declaring.draft(at(seconds)).unwrap().content;
    let all = status.seccomp.iter().chain(&status.app_armor);
    all.map(|(reference, label)| format!("{reference}={label}")).collect()
}

/// The references alone.
fn references(declaring: &mut Declaring, seconds: u64) -> Vec<String> {
    let shown = shown(declaring, seconds);
    shown.iter().filter_map(|entry| Some(entry.split_once('=')?.0.to_owned())).collect()
}

fn check(bundles: &[Declared], expected: &[&str]) {
    assert_eq!(shown(&mut with(bundles), 0), expected);
}

#[test]
fn each_reference_has_the_label_that_placement_selects_on() {
    check(
        &[
            seccomp("web", 1, &["a.json"]),
            seccomp("team/web", 2, &["a.json"]),
            by_bundle(seccomp("many", 3, &["a.json"])),
            by_bundle(seccomp("team/many", 3, &["a.json"])),
            seccomp("long", 4, &[&"k".repeat(60)]),
            apparmor("aa", 5, &["profile deny-write {\n}\nprofile team/x {\n}\n"]),
        ],
        &[
            "_team/many/a.json=team.bundle.pavise.dev/many",
            "_team/web/a.json=team.seccomp.pavise.dev/web_a.json",
            &format!(
                "long/{}=seccomp.pavise.dev/long_kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk_d2f4e75df8aeb0f4",
                "k".repeat(60)
            ),
            "many/a.json=bundle.pavise.dev/many",
            "web/a.json=seccomp.pavise.dev/web_a.json",
            "deny-write=apparmor.pavise.dev/deny-write",
            "team/x=apparmor.pavise.dev/team_x_b5a9e66419d51b2f",
        ],
    );
}

#[test]
fn what_is_no_bundle_and_no_key_declares_nothing() {
    let misspelt = Source { kind: "secomp".to_owned(), ..source("web", 1, &[("a.json", "{}")]) };
    let binary = Source { binary_keys: vec!["b.json".to_owned()], ..source("bin", 1, &[("..a", "{}")]) };
    check(
        &[
            Declared::of(&misspelt, None),
            Declared::of(&binary, None),
            apparmor("aa", 1, &["profile /bin/x {\n}"]),
        ],
        &["bin/b.json=seccomp.pavise.dev/bin_b.json"],
    );
}

#[test]
fn a_name_belongs_to_the_oldest_bundle() {
    let text = "profile x {\n}\n";
    let entry = |label: &str| vec![format!("x={label}")];
    let (old, young) = (by_bundle(apparmor("old", 1, &[text])), apparmor("a", 2, &[text]));
    let mut declaring = with(&[young.clone(), old.clone()]);
    assert_eq!(shown(&mut declaring, 0), entry("bundle.pavise.dev/old"));
    declaring.deleted(&old.id);
    assert_eq!(shown(&mut declaring, 1), entry("apparmor.pavise.dev/x"));
    let same_age = by_bundle(apparmor("b", 2, &[text]));
    declaring.applied(same_age);
    assert_eq!(shown(&mut declaring, 1), entry("apparmor.pavise.dev/x"));
}

#[test]
fn beyond_256_labels_of_profiles_bundles_have_their_own() {
    let keys: Vec<String> = (0..255).map(|number| format!("k{number}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for (before, expected) in [
        (seccomp("old", 1, &keys), "seccomp.pavise.dev/web_a"),
        (seccomp("old", 1, &[&keys[..], &["one-more"]].concat()), "bundle.pavise.dev/web"),
        (by_bundle(seccomp("old", 1, &[&keys[..], &["one-more"]].concat())), "seccomp.pavise.dev/web_a"),
        (seccomp("old", 3, &[&keys[..], &["one-more"]].concat()), "seccomp.pavise.dev/web_a"),
    ] {
        let status = with(&[before, seccomp("web", 2, &["a"])]).draft(at(0)).unwrap().content;
        assert_eq!(status.seccomp["web/a"], expected);
        assert_eq!((status.totals.seccomp as usize, status.totals.omitted), (status.seccomp.len(), 0));
    }
}

#[test]
fn what_is_declared_is_what_a_pod_has_to_select_on() {
    let bundles =
        [seccomp("web", 1, &["a.json", &"k".repeat(60)]), apparmor("aa", 2, &["profile a/b {\n}\n"])];
    let status = with(&bundles).draft(at(0)).unwrap().content;
    let catalog = ProfileCatalog { status: (*status).clone(), ..ProfileCatalog::default() };
    for (kind, references) in [(Kind::Seccomp, &status.seccomp), (Kind::AppArmor, &status.app_armor)] {
        assert!(!references.is_empty());
        assert!(references.keys().all(|reference| catalog.is_known(kind, reference)));
    }
}

#[test]
fn what_nobody_declares_goes_after_the_delay() {
    let web = |keys: &[&str]| seccomp("web", 1, keys);
    let mut declaring = with(&[web(&["a", "b"])]);
    assert_eq!(references(&mut declaring, 0), ["web/a", "web/b"]);
    assert_eq!(declaring.due(), None);
    declaring.applied(web(&["a"]));
    assert_eq!(references(&mut declaring, 10), ["web/a", "web/b"]);
    declaring.deleted(&web(&[]).id);
    assert_eq!(references(&mut declaring, 100), ["web/a", "web/b"]);
    assert_eq!(declaring.due(), Some(at(310)));
    assert_eq!(references(&mut declaring, 310), ["web/a"]);
    assert_eq!(declaring.due(), Some(at(400)));
    declaring.applied(web(&["a"]));
    assert_eq!(references(&mut declaring, 400), ["web/a"]);
    declaring.applied(web(&[]));
    assert_eq!(references(&mut declaring, 500), ["web/a"]);
    assert_eq!((references(&mut declaring, 800), declaring.due()), (vec![], None));
}

#[test]
fn nothing_goes_and_no_label_changes_before_all_bundles_are_known() {
    let web = seccomp("web", 2, &["a"]);
    let before = with(&[by_bundle(web.clone()), seccomp("team/x", 1, &["k"])]).draft(at(0)).unwrap().content;
    let mut declaring = started(Some(&before));
    assert_eq!(declaring.draft(at(0)), None);
    declaring.applied(seccomp("team/y", 1, &["k"]));
    declaring.deleted(&BundleId::new("team", "y").unwrap());
    list(&mut declaring, &["ns"], &[web.clone(), seccomp("new", 3, &["b"])]);
    declaring.deleted(&BundleId::new("ns", "new").unwrap());
    assert_eq!(
        shown(&mut declaring, 1_000),
        ["_team/x/k=team.seccomp.pavise.dev/x_k", "web/a=bundle.pavise.dev/web"]
    );
    list(&mut declaring, &["team"], &[]);
    assert!(declaring.draft(at(2_000)).unwrap().is_ready);
    assert_eq!(
        shown(&mut declaring, 2_000),
        ["_team/x/k=team.seccomp.pavise.dev/x_k", "web/a=seccomp.pavise.dev/web_a"]
    );
    assert_eq!(shown(&mut declaring, 2_300), ["web/a=seccomp.pavise.dev/web_a"]);
}

#[test]
fn what_is_new_does_not_wait_for_a_namespace_that_nobody_can_list() {
    let mut declaring = started(None);
    list(&mut declaring, &["ns"], &[seccomp("web", 1, &["a", "b"])]);
    assert_eq!(references(&mut declaring, 0), ["web/a", "web/b"]);
    declaring.applied(seccomp("web", 1, &["b", "c"]));
    assert_eq!(references(&mut declaring, 1_000), ["web/a", "web/b", "web/c"]);
}

#[test]
fn what_is_not_accepted_declares_what_it_says_and_what_was_accepted_before() {
    const GOOD: &str = "profile a {\n}\nprofile b {\n}\n";
    const BAD: &str = "profile b {\n}\nprofile c {\n  fil,\n}\n";
    const BROKEN: &str = "profile \"b {";
    const OTHER: &str = "profile d {\n}\n";
    for (story, at_once, later) in [
        (&[GOOD][..], &["a", "b"][..], &["a", "b"][..]),
        (&[BAD], &["b", "c"], &["b", "c"]),
        (&[GOOD, BAD], &["a", "b", "c"], &["a", "b", "c"]),
        (&[GOOD, BAD, BROKEN], &["a", "b", "c"], &["a", "b"]),
        (&[GOOD, BROKEN, BROKEN], &["a", "b"], &["a", "b"]),
        (&[BAD, OTHER], &["b", "c", "d"], &["d"]),
        (&[GOOD, BAD, OTHER], &["a", "b", "c", "d"], &["d"]),
    ] {
        let mut declaring = with(&[]);
        for text in story {
            declaring.applied(apparmor("aa", 1, &[text]));
            let error = Diagnostic {
                code: Code::InvalidPolicy,
                place: Place::at("$"),
                message: String::new(),
                help: "",
            };
            let found = [GOOD, OTHER].iter().all(|good| good != text).then_some(error);
            declaring.compiled(Digest::of(text.as_bytes()), found.as_slice());
            declaring.draft(at(0));
        }
        assert_eq!(references(&mut declaring, 0), at_once, "{story:?}");
        assert_eq!(references(&mut declaring, 300), later, "{story:?}, after the delay");
    }
}

#[test]
fn a_text_that_was_accepted_in_another_bundle_is_accepted() {
    let (one, same) = (apparmor("one", 1, &["profile a {\n}\n"]), apparmor("two", 1, &["profile a {\n}\n"]));
    let mut declaring = with(&[apparmor("two", 1, &["profile b {\n}\n"]), one.clone()]);
    accept(&mut declaring, &apparmor("two", 1, &["profile b {\n}\n"]));
    accept(&mut declaring, &one);
    assert_eq!(references(&mut declaring, 0), ["a", "b"]);
    declaring.applied(same);
    assert_eq!(references(&mut declaring, 0), ["a", "b"]);
    assert_eq!(references(&mut declaring, 300), ["a"]);
}

#[test]
fn while_it_is_not_known_what_a_text_was_the_object_keeps_its_names() {
    let text = |name: &str| apparmor("aa", 1, &[&format!("profile {name} {{\n}}\n")]);
    let before = with(&[text("a"), seccomp("s", 1, &["k"])]).draft(at(0)).unwrap().content;
    let mut declaring = started(Some(&before));
    list(&mut declaring, &NAMESPACES, &[apparmor("aa", 1, &["profile \"a {"])]);
    assert_eq!(references(&mut declaring, 0), ["s/k", "a"]);
    assert_eq!(references(&mut declaring, 1_000), ["a"]);
    declaring.applied(text("b"));
    assert_eq!(references(&mut declaring, 2_000), ["a", "b"]);
    accept(&mut declaring, &text("b"));
    assert_eq!(references(&mut declaring, 2_000), ["a", "b"]);
    assert_eq!(references(&mut declaring, 2_300), ["b"]);
}

#[test]
fn a_bundle_with_too_many_keys_keeps_what_it_had() {
    let (few, many) = (seccomp("web", 1, &["a"]), unreadable("seccomp", "web", 1));
    let mut declaring = with(&[few.clone(), seccomp("other", 1, &["a"])]);
    let before = declaring.draft(at(0)).unwrap().content;
    declaring.applied(many.clone());
    assert_eq!(declaring.draft(at(1_000)).unwrap().content, before);
    let mut restarted = started(Some(&before));
    list(&mut restarted, &NAMESPACES, &[many]);
    assert_eq!(references(&mut restarted, 0), ["other/a", "web/a"]);
    assert_eq!(references(&mut restarted, 300), ["web/a"]);
    restarted.applied(few);
    assert_eq!(references(&mut restarted, 300), ["web/a"]);
}

#[test]
fn a_bundle_with_too_many_keys_keeps_nothing_of_another_kind() {
    for (before, kind, reference) in [
        (seccomp("web", 1, &["a"]), "apparmor", "web/a"),
        (apparmor("web", 1, &["profile x {\n}\n"]), "seccomp", "x"),
    ] {
        let mut declaring = with(&[before]);
        assert_eq!(references(&mut declaring, 0), [reference]);
        declaring.applied(unreadable(kind, "web", 1));
        assert_eq!(references(&mut declaring, 0), [reference], "the removal delay");
        assert_eq!(references(&mut declaring, 300), Vec::<String>::new(), "{kind}");
    }
}

/// Claims the label of `web`, which asks for ten labels, beside a bundle that held so many profiles before it
/// became as `now`; and that a restart does not change it.
fn check_beside(before: &Declared, now: &Declared, expected: &str) {
    let ten = keys(10);
    let web = seccomp("web", 2, &ten.iter().map(String::as_str).collect::<Vec<_>>());
    let mut declaring = with(&[before.clone(), web.clone()]);
    accept(&mut declaring, before);
    declaring.draft(at(0));
    declaring.applied(now.clone());
    let content = declaring.draft(at(0)).unwrap().content;
    assert_eq!(content.seccomp["web/k0"], expected);
    let mut restarted = started(Some(&content));
    for (seconds, name) in [(0, "ns"), (1, "team"), (1_000, "team")] {
        list(&mut restarted, &[name], &[now.clone(), web.clone()]);
        let after = restarted.draft(at(seconds)).unwrap().content;
        assert_eq!(after.seccomp["web/k0"], expected, "after a restart, {name} is listed");
    }
}

#[test]
fn what_nodes_may_hold_of_a_bundle_counts_also_after_a_restart() {
    let (of_profile, of_bundle) = ("seccomp.pavise.dev/web_k0", "bundle.pavise.dev/web");
    for (count, expected) in [(246, of_profile), (247, of_bundle), (300, of_bundle)] {
        let held = keys(count);
        let names: Vec<&str> = held.iter().map(String::as_str).collect();
        check_beside(&seccomp("old", 1, &names), &unreadable("seccomp", "old", 1), expected);
        check_beside(&seccomp("team/old", 1, &names), &unreadable("seccomp", "team/old", 1), expected);
        let text = declaring_names(&held);
        let before = apparmor("aa", 1, &[&text]);
        check_beside(&before, &unreadable("apparmor", "aa", 1), expected);
        // Refused, with all names but one, or without any.
        let rest = declaring_names(&held[1..]) + "profile /x {\n}\n";
        check_beside(&before, &apparmor("aa", 1, &[&rest]), expected);
    }
    // A text of which nothing can be read.
    let text = declaring_names(&keys(250));
    check_beside(&apparmor("aa", 1, &[&text]), &apparmor("aa", 1, &["profile \"x"]), of_bundle);
    // What has no labels of profiles asks for none.
    let old = by_bundle(apparmor("aa", 1, &[&text]));
    check_beside(&old, &by_bundle(apparmor("aa", 1, &["profile \"x"])), of_profile);
    check_beside(
        &by_bundle(seccomp("old", 3, &["a"])),
        &by_bundle(unreadable("seccomp", "old", 3)),
        of_profile,
    );
}

#[test]
fn of_refused_texts_so_many_names_are_kept_as_of_all_others() {
    let text = |number: usize, more: &str| {
        let names: Vec<String> = (0..500).map(|of_it| format!("p{number}-{of_it}")).collect();
        declaring_names(&names) + more
    };
    for (more, count) in [("", 22), ("profile /refused {\n}\n", 22), ("", 20)] {
        let texts: Vec<String> = (0..count).map(|number| text(number, more)).collect();
        let bundle = apparmor("aa", 1, &texts.iter().map(String::as_str).collect::<Vec<_>>());
        let mut bundle = by_bundle(bundle);
        assert_eq!(bundle.texts().map(|text| text.names.len()).sum::<usize>(), MOST_NAMES);
    }
}

#[test]
fn of_the_versions_before_so_many_names_are_kept_as_of_all_others() {
    let names =
        |number: usize| -> Vec<String> { (0..500).map(|of_it| format!("p{number}-{of_it}")).collect() };
    let texts: Vec<String> = (0..20).map(|number| declaring_names(&names(number))).collect();
    let mut declaring = with(&[]);
    for round in 0..3 {
        // Those before are refused, and as many are new.
        let broken = (0..round * 20).map(|_| "profile \"");
        let all: Vec<&str> = broken.chain(texts.iter().map(String::as_str)).collect();
        let bundle = apparmor("aa", 1, &all);
        declaring.applied(bundle.clone());
        accept(&mut declaring, &bundle);
    }
    let held = declaring.bundles.values_mut().flat_map(Declared::texts).filter_map(|text| text.held.clone());
    assert!(held.map(|held| held.len()).sum::<usize>() <= 2 * MOST_NAMES);
}

#[test]
fn what_there_is_no_room_for_is_left_out_by_whole_bundles_the_newest_first() {
    let keys: Vec<String> = (0..1_500).map(|number| format!("{number:0>240}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let large = |name, created| seccomp(name, created, &keys);
    let mut declaring =
        with(&[large("c", 3), large("a", 1), large("d", 4), large("b", 2), seccomp("e", 5, &["k"])]);
    let status = declaring.draft(at(0)).unwrap().content;
    let bundles: BTreeSet<&str> =
        status.seccomp.keys().filter_map(|reference| Some(reference.split_once('/')?.0)).collect();
    assert_eq!(bundles, ["a", "b", "e"].into());
    assert_eq!((status.totals.seccomp, status.totals.omitted), (3_001, 3_000));
    let size = serde_json::to_string(&*status).unwrap().len();
    assert!((700 << 10..1 << 20).contains(&size), "{size} bytes");

    // What nobody declares any more takes no room from what somebody does.
    declaring.deleted(&large("a", 1).id);
    let status = declaring.draft(at(1)).unwrap().content;
    assert_eq!(status.totals.omitted, 1_500);
    assert!(serde_json::to_string(&*status).unwrap().len() < 1 << 20);
    assert!(status.seccomp.contains_key("e/k") && status.seccomp.keys().any(|key| key.starts_with("c/")));
}

/// What the bundles of the random histories hold. The last is refused, and nothing can be read of it.
const VERSIONS: [&str; 5] = ["a", "b", "a+b", "c", ""];

fn version(bundle: usize, version: usize) -> Declared {
    let names = VERSIONS[version];
    match bundle {
        0 => seccomp("web", 1, &names.split('+').filter(|key| !key.is_empty()).collect::<Vec<_>>()),
        1 | 2 => {
            let texts = names.split('+').map(|name| format!("profile {name} {{\n}}\n"));
            let text = if names.is_empty() { "profile \"".to_owned() } else { texts.collect() };
            apparmor(["old", "team/young"][bundle - 1], [1, 2][bundle - 1], &[&text])
        }
        _ => by_bundle(seccomp("team/x", 3, &["k"])),
    }
}

/// Bundles come, change and go, time passes, and the catalog is started anew.
#[test]
fn random_histories() {
    let histories = vec((0_usize..4, 0_usize..6, 0_u64..200, any::<bool>(), any::<bool>()), 1..40);
    let mut runner = runner(500);
    let result = runner.run(&histories, |history| {
        let (mut bundles, mut now) = (BTreeMap::<usize, Declared>::new(), 0);
        let mut declaring = with(&[]);
        // When each reference was last declared.
        let mut last = BTreeMap::<String, u64>::new();
        for (bundle, change, seconds, is_restarted, is_compiled) in history {
            let before = declaring.draft(at(now)).unwrap().content;
            now += seconds;
            last.extend(declared(&bundles).into_iter().map(|reference| (reference, now)));
            if is_restarted {
                let before = declaring.draft(at(now)).unwrap().content;
                declaring = started(Some(&before));
                let all: Vec<Declared> = bundles.values().cloned().collect();
                for (index, name) in NAMESPACES.iter().enumerate() {
                    list(&mut declaring, &[name], &all);
                    let draft = declaring.draft(at(now)).unwrap();
                    assert_eq!(draft.content, before, "a restart changed something");
                    assert_eq!(draft.is_ready, index == 1);
                }
            } else if let Some(declared) = (change < VERSIONS.len()).then(|| version(bundle, change)) {
                declaring.applied(declared.clone());
                if is_compiled && !VERSIONS[change].is_empty() {
                    accept(&mut declaring, &declared);
                }
                bundles.insert(bundle, declared);
            } else {
                declaring.deleted(&version(bundle, 0).id);
                bundles.remove(&bundle);
            }
            let shown = references(&mut declaring, now);
            for reference in declared(&bundles) {
                assert!(shown.contains(&reference), "{reference} is declared, and not there");
            }
            for reference in before.seccomp.keys().chain(before.app_armor.keys()) {
                let is_late = now >= last[reference] + 300;
                assert!(shown.contains(reference) || is_late, "{reference} went too early");
            }
        }
        let all: Vec<Declared> = (0..4).map(|bundle| version(bundle, 0)).collect();
        for declared in &all {
            declaring.applied(declared.clone());
            accept(&mut declaring, declared);
        }
        declaring.draft(at(now));
        assert_eq!(declaring.draft(at(now + 300)).unwrap().content, with(&all).draft(at(0)).unwrap().content);
        Ok(())
    });
    result.unwrap();
}

fn declared(bundles: &BTreeMap<usize, Declared>) -> BTreeSet<String> {
    let entries = bundles.values().flat_map(|bundle| bundle.entries(&namespace("ns"), true));
    entries.map(|((_, reference), _)| reference).collect()
}
