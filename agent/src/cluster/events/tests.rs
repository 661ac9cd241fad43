//! What is sent, and how answers are understood.

use kube::core::Status;
use profiles::bundle::BundleId;
use profiles::check::PodReason;
use profiles::pod::PodId;
use profiles::statement::Reason;

use super::*;
use crate::cluster::script::{self, Exchange};

fn statement(reason: Reason) -> Statement {
    Statement {
        subject: Subject::from(&BundleId::new("pavise-profiles", "web").unwrap()),
        uid: "0b7d".to_owned(),
        field: Some("data[nginx.json]".to_owned()),
        reason,
        note: "nginx.json is refused: …".to_owned(),
    }
}

fn refusal(code: u16, message: &str) -> kube::Error {
    kube::Error::Api(Status::failure(message, "Because").with_code(code).boxed())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

#[test]
fn an_event_has_what_the_api_server_wants_and_no_more() {
    let statement = statement(Reason::ProfileRefused);
    let json =
        serde_json::to_value(event(&statement, &Reporter::catalog("pavise-catalog-1"), at(0))).unwrap();
    let expected = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "pavise-profiles", "name": statement.name()},
        "regarding": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "namespace": "pavise-profiles",
            "name": "web",
            "uid": "0b7d",
            "fieldPath": "data[nginx.json]",
        },
        "type": "Warning",
        "reason": "ProfileRefused",
        "action": "Judge",
        "note": "nginx.json is refused: …",
        "eventTime": "2027-01-15T08:00:00.000000Z",
        "reportingController": "pavise.dev/catalog",
        "reportingInstance": "pavise-catalog-1",
    });
    assert_eq!(json, expected);
}

#[test]
fn an_event_on_a_pod_is_the_node_s_word() {
    let pod = PodId { namespace: "team-a".to_owned(), name: "web-1".to_owned(), uid: "4f".to_owned() };
    let statement = Statement {
        subject: Subject::from(&pod),
        uid: pod.uid,
        field: Some("spec.containers{nginx}".to_owned()),
        reason: Reason::OfPod(PodReason::ProfileMissing),
        note: "container nginx: …".to_owned(),
    };
    let reporter = Reporter::agent(&NodeName::new("node1").unwrap());
    let json = serde_json::to_value(event(&statement, &reporter, at(0))).unwrap();
    let expected = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": "team-a", "name": statement.name()},
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "team-a",
            "name": "web-1",
            "uid": "4f",
            "fieldPath": "spec.containers{nginx}",
        },
        "type": "Warning",
        "reason": "ProfileMissing",
        "action": "Check",
        "note": "container nginx: …",
        "eventTime": "2027-01-15T08:00:00.000000Z",
        "reportingController": "pavise.dev/agent",
        "reportingInstance": "node1",
    });
    assert_eq!(json, expected);
}

#[test]
fn the_policy_takes_what_the_agent_writes() {
    let policy = include_str!("../../../../manifests/base/own-events.yaml");
    let reporter = Reporter::agent(&NodeName::new("node1").unwrap());
    let reasons = PodReason::ALL.into_iter().filter(|reason| reason.is_event()).map(Reason::OfPod);
    let reasons = reasons.chain([Reason::MoreProblems]).map(|reason| format!("'{}'", reason.as_str()));
    for expected in [
        format!("in [{}]", reasons.collect::<Vec<_>>().join(", ")),
        format!("'{}'", Reason::ProfilesResolved.as_str()),
        format!("'{}'", reporter.controller),
        format!("'{}'", reporter.action),
        format!("'{}'", reporter.field_manager),
        format!("size() <= {LONGEST_INSTANCE}"),
    ] {
        assert!(policy.contains(&expected), "the policy does not have {expected}");
    }
}

#[test]
fn the_policy_takes_what_the_catalog_writes() {
    let policy = include_str!("../../../../manifests/components/place/pending.yaml");
    let reporter = Reporter::catalog("pavise-catalog-1");
    let problems = [Reason::BundleProblem, Reason::ProfileRefused, Reason::ProfileFlaw, Reason::MoreProblems]
        .map(quoted);
    for expected in [
        format!("in [{}]", problems.join(", ")),
        quoted(Reason::ProfilesAccepted),
        quoted(Reason::NoNodeHasProfile),
        format!("'{}'", reporter.controller),
        format!("'{}'", reporter.action),
        format!("'{}'", reporter.field_manager),
        format!("size() <= {LONGEST_INSTANCE}"),
    ] {
        assert!(policy.contains(&expected), "the policy does not have {expected}");
    }
}

fn quoted(reason: Reason) -> String {
    format!("'{}'", reason.as_str())
}

#[test]
fn good_news_are_normal() {
    assert_eq!(
        event(&statement(Reason::ProfilesAccepted), &Reporter::catalog("p"), at(0)).type_.as_deref(),
        Some("Normal")
    );
}

#[test]
fn a_repetition_writes_the_series_alone() {
    let expected = json!({"series": {"count": 3, "lastObservedTime": "2027-01-15T08:00:07.000000Z"}});
    assert_eq!(series(3, at(7)), expected);
}

#[test]
fn what_an_event_says_of_itself_is_understood() {
    let mut said = event(&statement(Reason::ProfileFlaw), &Reporter::catalog("p"), at(0));
    assert_eq!(was_said(&said, at(60)), Outcome::WasSaid(1, Duration::from_mins(1)));
    assert_eq!(was_said(&said, at(-60)), Outcome::WasSaid(1, Duration::ZERO));
    said.series = serde_json::from_value(series(4, at(60))["series"].clone()).unwrap();
    assert_eq!(was_said(&said, at(90)), Outcome::WasSaid(4, Duration::from_secs(30)));
}

#[test]
fn a_refusal_is_told_from_what_may_pass() {
    let going = "unable to create new content in namespace a because it is being terminated";
    let (is_going, permission) = ("the namespace is going, or gone", "create and patch events");
    for (code, message, outcome, on_pod, on_bundle) in [
        (422, "note: too long", Outcome::Refused, permission, permission),
        (403, "events is forbidden: User", Outcome::Failed, permission, permission),
        (403, going, Outcome::Failed, is_going, "--bundle-namespace"),
        (404, "namespaces \"a\" not found", Outcome::Failed, is_going, "--bundle-namespace"),
        (500, "etcd is away", Outcome::Failed, "trying again", "trying again"),
    ] {
        let error = refusal(code, message);
        assert_eq!(outcome_of(&error), outcome, "{code}");
        for (kind, words) in [(SubjectKind::Pod, on_pod), (SubjectKind::ConfigMap, on_bundle)] {
            let advice = advice_on(&error, kind);
            assert!(advice.contains(words), "{code}: {advice}");
            assert!(kind == SubjectKind::ConfigMap || !advice.contains("--bundle-namespace"), "{advice}");
        }
    }
}

#[tokio::test]
async fn namespaces_that_are_gone_are_forgotten() {
    let gone = json!({"kind": "Status", "status": "Failure", "message": "namespaces not found", "code": 404});
    let exchange = || Exchange { asked: "/events", status: 404, answer: vec![gone.clone()] };
    let script = (0..2 * MOST_FAILING).map(|_| exchange()).collect();
    let writer = Writer::of_agent(script::client(script), &NodeName::new("node1").unwrap());
    for index in 0..2 * MOST_FAILING {
        let mut statement = statement(Reason::OfPod(PodReason::ProfileMissing));
        statement.subject.namespace = format!("namespace-{index}");
        assert_eq!(writer.write(&Write { statement, how: How::First }).await, Outcome::Failed);
    }
    assert_eq!(writer.failing.borrow().len(), MOST_FAILING);
}
