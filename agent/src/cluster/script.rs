//! An API server that answers by a script, for the tests of watches.

use std::collections::VecDeque;
use std::future;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::Connection;

/// What is asked, and the answer.
pub(crate) struct Exchange {
    /// What the path and query of the request have to contain.
    pub(crate) asked: &'static str,
    /// The status of the answer.
    pub(crate) status: u16,
    /// The lines of its body, after which the connection is closed.
    pub(crate) answer: Vec<Value>,
}

/// A client of an API server that answers each request with the next of `script`, and then no more.
///
/// A request that is not the scripted one panics.
pub(crate) fn client(script: Vec<Exchange>) -> Connection {
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let service = tower::service_fn(move |request: Request<Body>| {
        let next = script.lock().unwrap().pop_front();
        async move {
            let Some(Exchange { asked, status, answer }) = next else { return future::pending().await };
            let path = request.uri().to_string();
            assert!(path.contains(asked), "{path} was asked instead of {asked}");
            let lines: Vec<String> = answer.iter().map(|line| format!("{line}\n")).collect();
            let body = Body::from(lines.concat().into_bytes());
            Response::builder().status(status).body(body)
        }
    });
    Connection(Client::new(service, "default"))
}

/// A line of a watch.
pub(crate) fn line(kind: &str, mut object: Value, version: u32) -> Value {
    object["metadata"]["resourceVersion"] = version.to_string().into();
    json!({"type": kind, "object": object})
}

/// The line with which the list that a watch of pods begins with ends. No field of a pod but these is in it, or
/// with the value of no pod.
pub(crate) fn end_of_pods(version: u32) -> Value {
    let metadata = json!({"creationTimestamp": null, "annotations": {"k8s.io/initial-events-end": "true"}});
    let empty = json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata,
        "spec": {"containers": null}, "status": {}});
    line("BOOKMARK", empty, version)
}
