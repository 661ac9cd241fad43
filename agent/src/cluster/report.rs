//! The `NodeProfileReport` of our own Node: what `kubectl get npr` shows.
//!
//! Server-side apply makes and changes it in one request. It is one write, as the definition has no
//! subresource `status`: nobody but the agent writes any part of it. The Node owns it, so it goes with the
//! Node.
//!
//! Invariant: nothing is written before the Node was seen, or after it was gone.

use std::cell::RefCell;
use std::rc::Rc;

use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use profiles::report::{Answer, Report, Request};
use serde_json::{Value, json};

use super::node::OwnNode;
use super::own_object::OwnObject;
use super::{AGENT_MANAGER, Connection, api_version};

const PERMISSION: &str = "get, create and patch NodeProfileReports, and see what policy forbids it";

pub(super) const KIND: &str = "NodeProfileReport";
pub(super) const PLURAL: &str = "nodeprofilereports";

/// The UID of a Node while it is known to exist.
pub(super) type NodeUid = Rc<RefCell<Option<String>>>;

/// Reads and writes the report of one Node.
pub(crate) struct Reporter {
    object: OwnObject,
    uid: NodeUid,
}

impl Reporter {
    /// The report of `node`.
    pub(crate) fn new(client: Connection, node: &OwnNode) -> Self {
        let object = OwnObject::new(client, (KIND, PLURAL), node.name.as_str(), PERMISSION);
        Self { object, uid: node.uid.clone() }
    }

    /// Asks for it, or for it to be written, and says how that ended.
    pub(crate) async fn ask(&self, request: Request) -> Answer {
        // Its end is on its way to whoever asks.
        let Some(uid) = self.uid.borrow().clone() else { return Answer::Failed };
        let owner = owner(&self.object.name, uid);
        let answer = async {
            match &request {
                Request::Read => self.read(&owner).await,
                Request::Write(report) => self.write(&owner, report).await,
            }
        };
        self.object.ask(answer).await
    }

    /// What is there, if it is a report as [`Self::write`] makes it.
    async fn read(&self, owner: &OwnerReference) -> kube::Result<Answer> {
        let Some(DynamicObject { metadata, mut data, .. }) = self.object.get().await? else {
            return Ok(Answer::Found(None));
        };
        let is_owned = metadata.owner_references.as_deref() == Some(std::slice::from_ref(owner));
        let report = data.get_mut("status").map(Value::take);
        let report = report.and_then(|report| serde_json::from_value(report).ok());
        Ok(Answer::Found(report.filter(|_| is_owned)))
    }

    async fn write(&self, owner: &OwnerReference, report: &Report) -> kube::Result<Answer> {
        let params = PatchParams::apply(AGENT_MANAGER).force();
        let name = &self.object.name;
        self.object.api.patch(name, &params, &Patch::Apply(object(name, owner, report))).await?;
        Ok(Answer::Written)
    }
}

fn owner(node: &str, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: v1::Node::api_version(&()).into_owned(),
        kind: v1::Node::kind(&()).into_owned(),
        name: node.to_owned(),
        uid,
        ..OwnerReference::default()
    }
}

/// All of the object that is ours.
fn object(node: &str, owner: &OwnerReference, report: &Report) -> Value {
    json!({
        "apiVersion": api_version(),
        "kind": KIND,
        "metadata": {"name": node, "ownerReferences": [owner]},
        "status": report,
    })
}

#[cfg(test)]
mod tests {
    use profiles::name::NodeName;

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
        let owner = owner("n", uid.to_owned());
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
        let object = object("n", &owner("n", "u".to_owned()), &examples::report());
        assert_eq!(
            object["metadata"],
            json!({"name": "n", "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]})
        );
    }
}
