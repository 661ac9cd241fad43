//! The `NodeProfileReport` of our own Node: what `kubectl get npr` shows.
//!
//! Server-side apply makes and changes it in one request. It is one write, as the definition has no
//! subresource `status`: nobody but the agent writes any part of it. The Node owns it, so it goes with the
//! Node.
//!
//! Invariant: nothing is written before the Node was seen, or after it was gone. A cluster that does not know
//! such objects is a line in the log.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource as _};
use profiles::name::NodeName;
use profiles::report::{Answer, Report, Request};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::node::OwnNode;
use super::{Failing, advice, api_version, code, resource, said};

/// How long the API server may take, after which nobody knows how it ended.
const TIMEOUT: Duration = Duration::from_secs(10);
const PERMISSION: &str = "get, create and patch NodeProfileReports, and see what policy forbids it";
const FIELD_MANAGER: &str = "pavise";

pub(super) const KIND: &str = "NodeProfileReport";
pub(super) const PLURAL: &str = "nodeprofilereports";

/// The UID of a Node while it is known to exist.
pub(super) type NodeUid = Rc<RefCell<Option<String>>>;

/// Reads and writes the report of one Node.
pub(crate) struct Reporter {
    api: Api<DynamicObject>,
    name: NodeName,
    uid: NodeUid,
    failing: Failing,
}

impl Reporter {
    /// The report of `node`.
    pub(crate) fn new(client: Client, node: &OwnNode) -> Self {
        let (name, uid) = (node.name.clone(), node.uid.clone());
        Self { api: Api::all_with(client, &resource(KIND, PLURAL)), name, uid, failing: Failing::default() }
    }

    /// Asks for it, or for it to be written, and says how that ended.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        // Its end is on its way to whoever asks.
        let Some(uid) = self.uid.borrow().clone() else { return Answer::Failed };
        let owner = owner(&self.name, uid);
        let answer = async {
            match &request {
                Request::Read => self.read(&owner).await,
                Request::Write(report) => self.write(&owner, report).await,
            }
        };
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok(answer)) => {
                if self.failing.ends() {
                    info!(node = %self.name, "Node can be reported on again");
                }
                answer
            }
            Ok(Err(error)) => {
                self.complain(code(&error), &said(&error), &advice_on(&error));
                Answer::Failed
            }
            Err(_) => {
                self.complain(0, &format!("no answer for {TIMEOUT:?}"), "trying again");
                Answer::Failed
            }
        }
    }

    /// What is there, if it is a report as [`Self::write`] makes it.
    async fn read(&self, owner: &OwnerReference) -> kube::Result<Answer> {
        let DynamicObject { metadata, mut data, .. } = match self.api.get(self.name.as_str()).await {
            Ok(object) => object,
            // Also if the cluster does not know such objects: writing says so.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Answer::Found(None)),
            Err(error) => return Err(error),
        };
        let is_owned = metadata.owner_references.as_deref() == Some(std::slice::from_ref(owner));
        let report = data.get_mut("status").map(Value::take);
        let report = report.and_then(|report| serde_json::from_value(report).ok());
        Ok(Answer::Found(report.filter(|_| is_owned)))
    }

    async fn write(&self, owner: &OwnerReference, report: &Report) -> kube::Result<Answer> {
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(object(&self.name, owner, report));
        self.api.patch(self.name.as_str(), &params, &patch).await?;
        Ok(Answer::Written)
    }

    /// Once for each time that requests begin to fail, or fail in another way.
    fn complain(&self, code: u16, error: &str, advice: &str) {
        if self.failing.is_new(code) {
            warn!(node = %self.name, error, advice, "Node can't be reported on");
        }
    }
}

fn owner(node: &NodeName, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: v1::Node::api_version(&()).into_owned(),
        kind: v1::Node::kind(&()).into_owned(),
        name: node.to_string(),
        uid,
        ..OwnerReference::default()
    }
}

/// All of the object that is ours.
fn object(node: &NodeName, owner: &OwnerReference, report: &Report) -> Value {
    json!({
        "apiVersion": api_version(),
        "kind": KIND,
        "metadata": {"name": node.as_str(), "ownerReferences": [owner]},
        "status": report,
    })
}

fn advice_on(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            "the cluster does not know NodeProfileReports; apply the manifests of this version (kubectl apply -k), in \
             which they are defined"
                .to_owned()
        }
        _ => advice(error, PERMISSION),
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{self, Exchange};
    use super::*;
    use crate::examples;

    fn reporter(uid: Option<&str>, script: Vec<Exchange>) -> Reporter {
        let client = script::client(script);
        let node = OwnNode::new(client.clone(), NodeName::new("n").unwrap());
        node.uid.replace(uid.map(ToOwned::to_owned));
        Reporter::new(client, &node)
    }

    fn there(uid: &str, status: &Value) -> Value {
        let owner = owner(&NodeName::new("n").unwrap(), uid.to_owned());
        let metadata = json!({"name": "n", "resourceVersion": "7", "ownerReferences": [owner]});
        json!({"apiVersion": "pavise.dev/v1alpha1", "kind": KIND, "metadata": metadata, "status": status})
    }

    fn refused(code: u16, message: &str) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code})
    }

    /// Claims how `request` ends when the API server answers so.
    async fn check(request: Request, status: u16, answer: Value, expected: Answer) {
        let asked = match request {
            Request::Read => "/apis/pavise.dev/v1alpha1/nodeprofilereports/n",
            Request::Write(_) => "/nodeprofilereports/n?&force=true&fieldManager=pavise",
        };
        let reporter = reporter(Some("u"), vec![Exchange { asked, status, answer: vec![answer] }]);
        assert_eq!(reporter.ask(request).await, expected);
    }

    #[tokio::test]
    async fn a_report_is_found_if_it_is_as_the_agent_writes_it() {
        let report = Box::new(examples::report());
        let status = || serde_json::to_value(&report).unwrap();
        let found = Answer::Found(Some(report.clone()));
        check(Request::Read, 200, there("u", &status()), found).await;
        check(Request::Read, 200, there("of another Node of this name", &status()), Answer::Found(None))
            .await;
        check(Request::Read, 200, there("u", &json!({"agent": 7})), Answer::Found(None)).await;
        check(Request::Read, 404, refused(404, "not found"), Answer::Found(None)).await;
        check(Request::Read, 403, refused(403, "no"), Answer::Failed).await;
    }

    #[tokio::test]
    async fn a_report_is_written_by_server_side_apply() {
        let report = Box::new(examples::report());
        let answer = there("u", &serde_json::to_value(&report).unwrap());
        check(Request::Write(report.clone()), 201, answer, Answer::Written).await;
        check(Request::Write(report.clone()), 404, refused(404, "404 page not found"), Answer::Failed).await;
        check(Request::Write(report), 422, refused(422, "denied"), Answer::Failed).await;
    }

    #[tokio::test]
    async fn nothing_is_asked_while_there_is_no_node() {
        let reporter = reporter(None, Vec::new());
        assert_eq!(reporter.ask(Request::Read).await, Answer::Failed);
    }

    #[test]
    fn the_node_owns_its_report_and_nothing_waits_for_that() {
        let node = NodeName::new("n").unwrap();
        let object = object(&node, &owner(&node, "u".to_owned()), &examples::report());
        assert_eq!(
            object["metadata"],
            json!({"name": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]})
        );
    }

    #[test]
    fn a_missing_definition_is_said_to_be_missing() {
        let error = kube::Error::Api(kube::core::Status::failure("no", "NotFound").with_code(404).boxed());
        assert!(advice_on(&error).contains("kubectl apply -k"));
    }
}
