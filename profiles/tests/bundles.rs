//! What is said of bundles, for each code that is not of a document: reviewed as a whole, by people.
//!
//! `INSTA_UPDATE=always cargo test -p pavise-profiles` writes the snapshots anew.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use profiles::bundle::{Bundle, BundleId, Source};
use profiles::catalog::asking::{Asking, Judged};
use profiles::diagnostic::Diagnostic;
use profiles::label::LabelKey;
use profiles::name::{Namespace, NodeName};
use profiles::platform::{AppArmor, Platform};
use profiles::reference::Reference;
use profiles::state::{Config, Event, State};
use profiles::time::Time;
use profiles::verdicts::Verdicts;

const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

fn platform() -> Platform {
    Platform { architecture: "amd64".parse().unwrap(), kernel: "6.12".parse().unwrap() }
}

fn source(name: &str, keys: &[&str]) -> Source {
    let data = keys.iter().map(|key| ((*key).to_owned(), GOOD.to_owned())).collect();
    Source {
        id: BundleId::new("pavise-profiles", name).unwrap(),
        uid: "u".to_owned(),
        kind: "seccomp".to_owned(),
        annotations: BTreeMap::new(),
        created: None,
        data,
        binary_keys: Vec::new(),
    }
}

fn annotated(pairs: &[(&str, &str)]) -> Source {
    let annotations: BTreeMap<String, String> =
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Source { annotations, ..source("web", &["a.json"]) }
}

/// All that is said of `source` by itself.
fn said_of(source: Source) -> Vec<Diagnostic> {
    let bundle = Bundle::of(source, &mut Verdicts::new(platform()));
    let of_profiles = bundle.profiles.values().flat_map(|profile| profile.diagnostics().to_vec());
    bundle.diagnostics.iter().cloned().chain(of_profiles).collect()
}

/// What is said of `sources` on a node that has them all.
fn said_together(sources: Vec<Source>) -> Vec<Diagnostic> {
    let home = Namespace::new("pavise-profiles").unwrap();
    let removal_delay = Duration::from_mins(5);
    let config = Config {
        home: home.clone(),
        others: BTreeSet::new(),
        removal_delay,
        node: Some(NodeName::new("node1").unwrap()),
        apparmor: AppArmor::Disabled,
    };
    let mut state = State::new(config);
    let mut verdicts = Verdicts::new(platform());
    let bundles = sources.into_iter().map(|source| Bundle::of(source, &mut verdicts)).collect();
    state.apply(Event::Listed { namespace: home, bundles }, Time::default());
    state.findings().into_iter().map(|finding| finding.diagnostic).collect()
}

fn check(code: &str, said: &[Diagnostic]) {
    assert!(said.iter().any(|diagnostic| diagnostic.code.as_str() == code), "{code}: {said:?}");
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(code, said.join("\n"));
    });
}

#[test]
fn what_is_said_of_a_bundle_is_what_was_reviewed() {
    let binary = Source { binary_keys: vec!["b.json".to_owned()], ..source("web", &["a.json"]) };
    check("binary-data", &said_of(binary));
    check("empty-bundle", &said_of(source("web", &[])));
    check("invalid-key", &said_of(source("web", &["a.json", "..b", "c/d"])));
    check("invalid-node-labels", &said_of(annotated(&[("pavise.dev/node-labels", "none")])));
    check("invalid-node-selector", &said_of(annotated(&[("pavise.dev/node-selector", "pool in canary")])));
    let keys: Vec<String> = (0..2_001).map(|number| format!("{number}.json")).collect();
    check("too-many-keys", &said_of(source("web", &keys.iter().map(String::as_str).collect::<Vec<_>>())));
    check("unknown-annotation", &said_of(annotated(&[("pavise.dev/nodeselector", "pool=canary")])));
}

#[test]
fn what_is_said_of_a_wrong_kind_is_what_was_reviewed() {
    let wrong = Source { kind: "secomp".to_owned(), ..source("web", &["a.json"]) };
    let review = Asking::default().applied(Judged::of(&wrong, &[platform()].into()));
    let said: Vec<&str> = review.statements.iter().map(|statement| statement.note.as_str()).collect();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("unknown-kind", said.join("\n"));
    });
}

#[test]
fn what_is_said_of_bundles_together_is_what_was_reviewed() {
    let keys: Vec<String> = (0..257).map(|number| format!("{number}.json")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    check("labels-by-bundle", &said_together(vec![source("large", &keys)]));

    // The label of the longer one is shortened to what the other one has by its name.
    let long = "k".repeat(80);
    let reference: Reference = format!("web/{long}").parse().unwrap();
    let label = LabelKey::of_profile(&reference);
    let (_, twin) = label.as_str().split_once("/web_").unwrap();
    check("label-collision", &said_together(vec![source("web", &[&long, twin])]));
}
