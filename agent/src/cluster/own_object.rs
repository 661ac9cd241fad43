//! One object of ours, read and written when [`profiles::writing`] says so.
//!
//! Invariant: that requests fail is said once for each time that they begin to, or fail in another way. A
//! cluster that does not know such objects is a line in the log.

use std::cell::Cell;
use std::time::Duration;

use kube::Api;
use kube::api::DynamicObject;
use profiles::writing::Answer;
use tracing::{info, warn};

use super::{Connection, advice, code, resource, said};

/// How long the API server may take, after which nobody knows how it ended.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct OwnObject {
    pub(super) api: Api<DynamicObject>,
    pub(super) name: String,
    kind: &'static str,
    permission: &'static str,
    /// The code of the last request, if it failed.
    failing: Cell<Option<u16>>,
}

impl OwnObject {
    /// The cluster-wide object `name` of `kind`. Whoever asks for it needs `permission`.
    pub(super) fn new(
        client: Connection,
        (kind, plural): (&'static str, &str),
        name: &str,
        permission: &'static str,
    ) -> Self {
        let api = Api::all_with(client.0, &resource(kind, plural));
        Self { api, name: name.to_owned(), kind, permission, failing: Cell::default() }
    }

    /// What is there. Nothing is, also if the cluster does not know such objects: writing says so.
    pub(super) async fn get(&self) -> kube::Result<Option<DynamicObject>> {
        match self.api.get(&self.name).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if code(&error) == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How `request` ends, which is waited for [`TIMEOUT`].
    pub(super) async fn ask<T>(&self, request: impl Future<Output = kube::Result<Answer<T>>>) -> Answer<T> {
        match tokio::time::timeout(TIMEOUT, request).await {
            // Where nothing is there, it may still be that nothing can be written.
            Ok(Ok(answer @ Answer::Found(None))) => answer,
            Ok(Ok(answer)) => {
                if self.failing.take().is_some() {
                    info!(object = self.name, "{} can be read and written again", self.kind);
                }
                answer
            }
            Ok(Err(error)) => {
                self.complain(code(&error), &said(&error), &self.advice(&error));
                Answer::Failed
            }
            Err(_) => {
                self.complain(0, &format!("no answer for {TIMEOUT:?}"), "trying again");
                Answer::Failed
            }
        }
    }

    fn complain(&self, code: u16, error: &str, advice: &str) {
        if self.failing.replace(Some(code)) != Some(code) {
            warn!(object = self.name, error, advice, "{} can't be read or written", self.kind);
        }
    }

    fn advice(&self, error: &kube::Error) -> String {
        match code(error) {
            404 => format!(
                "the cluster does not know {}s; apply the manifests of this version (kubectl apply -k), in which \
                 they are defined",
                self.kind
            ),
            _ => advice(error, self.permission),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::script::{self, Exchange};
    use super::*;

    /// Has something read, or written, that the API server answers with these codes, and claims after which of
    /// them requests count as failing.
    #[tokio::test]
    async fn it_is_over_when_something_was_read_or_written_and_not_when_nothing_is_there() {
        let status = |code| json!({"kind": "Status", "status": "Failure", "message": "no", "code": code});
        let there =
            || json!({"apiVersion": "pavise.dev/v1alpha1", "kind": "Kind", "metadata": {"name": "n"}});
        for (codes, is_failing) in [
            (&[404][..], false),
            (&[403], true),
            (&[403, 200], false),
            (&[403, 404], true),
            (&[403, 404, 403, 200], false),
        ] {
            let exchange = |&code: &u16| Exchange {
                asked: "/apis/pavise.dev/v1alpha1/kinds/n",
                status: code,
                answer: vec![if code == 200 { there() } else { status(code) }],
            };
            let client = script::client(codes.iter().map(exchange).collect());
            let object = OwnObject::new(client, ("Kind", "kinds"), "n", "get Kinds");
            for _ in codes {
                object
                    .ask(async { Ok(Answer::Found(object.get().await?.map(|object| object.metadata.name))) })
                    .await;
            }
            assert_eq!(object.failing.get().is_some(), is_failing, "{codes:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_definition_is_said_to_be_missing() {
        let object = OwnObject::new(script::client(Vec::new()), ("Kind", "kinds"), "n", "get Kinds");
        let failed = |code| kube::Error::Api(kube::core::Status::failure("no", "").with_code(code).boxed());
        assert!(object.advice(&failed(404)).contains("does not know Kinds; apply the manifests"));
        assert!(object.advice(&failed(403)).contains("get Kinds"));
    }
}
