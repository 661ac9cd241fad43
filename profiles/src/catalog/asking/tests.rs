//! Edits, answers, and none.

use std::time::Duration;

use super::*;
use crate::diagnostic::{Code, Place};
use crate::statement::Reason;

/// An AppArmor text that declares `name`, and with which nothing is wrong.
fn good(name: &str) -> String {
    format!("profile {name} {{\n  file,\n}}\n")
}

/// One with a warning of its own.
fn flawed(name: &str) -> String {
    format!("profile {name} flags=(complain) {{\n}}\n")
}

fn judged(name: &str, texts: &[&str]) -> Judged {
    let keys: Vec<String> = (0..texts.len()).map(|number| format!("k{number}")).collect();
    let data: Vec<(&str, &str)> = keys.iter().map(String::as_str).zip(texts.iter().copied()).collect();
    let source = Source { kind: "apparmor".to_owned(), ..Source::example(name, &data) };
    Judged::of(&source, &[Platform::EXAMPLE].into())
}

fn finding(code: Code) -> Diagnostic {
    Diagnostic { code, place: Place::at("$"), message: code.to_string(), help: "" }
}

fn digest(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// The texts that are asked for, by their names, and when there may be more.
fn ask(asking: &mut Asking, now: Time) -> (Vec<String>, Option<Time>) {
    let (documents, wake_at) = asking.ask(now);
    let of = |(document, _): &(Document, _)| document.names().iter().map(ToString::to_string).collect();
    let mut names: Vec<String> = documents.iter().flat_map::<Vec<String>, _>(of).collect();
    names.sort();
    (names, wake_at)
}

/// Claims the field and reason of each statement, and whether that is all.
fn check(review: &Review, expected: &[(&str, Reason)], is_complete: bool) {
    let said: Vec<(&str, Reason)> = review
        .statements
        .iter()
        .map(|statement| (statement.field.as_deref().unwrap_or_default(), statement.reason))
        .collect();
    assert_eq!((said.as_slice(), review.is_complete), (expected, is_complete), "{review:?}");
}

const START: fn() -> Time = Time::default;

#[test]
fn what_a_text_refuses_itself_is_said_at_once_and_the_rest_when_it_is_compiled() {
    let mut asking = Asking::default();
    let (one, two) = (good("one"), flawed("two"));
    let review = asking.applied(judged("web", &[&one, &two, "profile /x {\n}\n"]));
    check(&review, &[("data[k2]", Reason::ProfileRefused)], false);
    assert_eq!(ask(&mut asking, START()), (vec!["one".to_owned(), "two".to_owned()], None));
    assert_eq!(ask(&mut asking, START()), (vec![], None), "they were asked for");

    let found = vec![finding(Code::InvalidPolicy)];
    assert_eq!(asking.answered(digest(&one), Some(found), START()), [], "the other one is on its way");
    let reviews = asking.answered(digest(&two), Some(vec![]), START());
    let expected = [
        ("data[k0]", Reason::ProfileRefused),
        ("data[k2]", Reason::ProfileRefused),
        ("data[k1]", Reason::ProfileFlaw),
    ];
    check(&reviews[0], &expected, true);
    assert_eq!(reviews.len(), 1);
}

#[test]
fn what_is_known_of_a_text_holds_for_every_bundle_as_long_as_one_has_it() {
    let mut asking = Asking::default();
    let text = good("one");
    asking.applied(judged("a", &[&text]));
    asking.applied(judged("b", &[&text]));
    assert_eq!(ask(&mut asking, START()).0, ["one"]);
    let found = Some(vec![finding(Code::PolicyLimit)]);
    let reviews = asking.answered(digest(&text), found.clone(), START());
    assert_eq!(reviews.iter().map(|review| review.subject.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);

    let refused = [("data[k0]", Reason::ProfileRefused)];
    check(&asking.applied(judged("a", &[&text])), &refused, true);
    check(&asking.applied(judged("a", &[&good("other")])), &[], false);
    check(&asking.applied(judged("a", &[&text])), &refused, true);
    asking.deleted(&BundleId::new("ns", "a").unwrap());
    let namespace = Namespace::new("ns").unwrap();
    check(&asking.listed(&namespace, vec![judged("c", &[&text])])[0], &refused, true);
    asking.listed(&namespace, vec![]);
    check(&asking.applied(judged("c", &[&text])), &[], false);
    // A bundle may also turn into one of another kind.
    let seccomp = Source::example("c", &[("k0", "{}")]);
    let review = asking.applied(Judged::of(&seccomp, &[Platform::EXAMPLE].into()));
    check(&review, &refused, true);
    assert_eq!(ask(&mut asking, START()), (vec![], None));
}

#[test]
fn the_content_of_a_text_is_kept_until_there_is_an_answer() {
    let mut asking = Asking::default();
    let (one, two) = (good("one"), good("two"));
    asking.applied(judged("a", &[&one]));
    asking.answered(digest(&one), Some(vec![]), START());
    asking.applied(judged("b", &[&one, &two]));
    let of_bundles: Vec<&Document> = asking.bundles.values().flat_map(documents).collect();
    assert!(of_bundles.iter().all(|document| document.content().is_empty()), "a bundle has a content");
    let contents = asking.waiting.values().map(|waiting| waiting.document.content());
    assert_eq!(contents.collect::<Vec<_>>(), [two.as_bytes()]);
    assert_eq!(asking.ask(START()).0[0].0.content(), two.as_bytes());
    asking.answered(digest(&two), None, START());
    assert_eq!(asking.waiting.len(), 1, "it is asked for again");
    asking.answered(digest(&two), Some(vec![]), START());
    assert!(asking.waiting.is_empty());
}

#[test]
fn each_text_is_asked_for_with_the_bundles_that_have_it() {
    let mut asking = Asking::default();
    let (shared, own) = (good("shared"), good("own"));
    asking.applied(judged("a", &[&shared]));
    asking.applied(judged("b", &[&own, &shared]));
    let asked: BTreeMap<Digest, Vec<String>> = asking
        .ask(START())
        .0
        .iter()
        .map(|(document, bundles)| (document.digest(), bundles.iter().map(ToString::to_string).collect()))
        .collect();
    let expected = [(digest(&shared), vec!["ns/a", "ns/b"]), (digest(&own), vec!["ns/b"])];
    let expected = expected.map(|(text, bundles)| (text, bundles.into_iter().map(str::to_owned).collect()));
    assert_eq!(asked, expected.into());
}

#[test]
fn an_answer_to_a_text_that_was_edited_since_changes_nothing() {
    let mut asking = Asking::default();
    let (before, after) = (good("before"), good("after"));
    asking.applied(judged("web", &[&before]));
    asking.ask(START());
    assert!(asking.is_asked(digest(&before)));
    check(&asking.applied(judged("web", &[&after])), &[], false);
    asking.ask(START());
    assert!(!asking.is_asked(digest(&before)) && asking.is_asked(digest(&after)));
    for found in [Some(vec![finding(Code::InvalidPolicy)]), None] {
        assert_eq!(asking.answered(digest(&before), found, START()), []);
    }
    assert!(!asking.is_failing());
    check(&asking.answered(digest(&after), Some(vec![]), START())[0], &[], true);
    // The text before is new again, if it comes back.
    check(&asking.applied(judged("web", &[&before])), &[], false);
    assert_eq!(ask(&mut asking, START()).0, ["before"]);
}

#[test]
fn a_text_without_an_answer_is_asked_for_again_more_and_more_slowly() {
    let mut asking = Asking::default();
    let (one, two) = (good("one"), good("two"));
    asking.applied(judged("web", &[&one, &two]));
    asking.ask(START());
    asking.answered(digest(&two), Some(vec![finding(Code::ParserWarning)]), START());
    let mut now = START();
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        let reviews = asking.answered(digest(&one), None, now);
        check(&reviews[0], &[("data[k1]", Reason::ProfileFlaw)], false);
        assert!(asking.is_failing());
        let due = now + Duration::from_secs(seconds);
        assert_eq!(ask(&mut asking, now), (vec![], Some(due)));
        assert_eq!(ask(&mut asking, due), (vec!["one".to_owned()], None));
        now = due;
    }
    let reviews = asking.answered(digest(&one), Some(vec![]), now);
    check(&reviews[0], &[("data[k1]", Reason::ProfileFlaw)], true);
    assert!(!asking.is_failing());
}

#[test]
fn what_the_blob_shows_again_is_said_once() {
    let mut asking = Asking::default();
    let text = flawed("one");
    asking.applied(judged("web", &[&text]));
    asking.ask(START());
    let found = vec![finding(Code::ComplainMode), finding(Code::ParserWarning)];
    let reviews = asking.answered(digest(&text), Some(found), START());
    let note = &reviews[0].statements[0].note;
    assert_eq!(note.matches("[complain-mode]").count(), 1, "{note}");
    assert_eq!(note.matches("[parser-warning]").count(), 1, "{note}");
}
