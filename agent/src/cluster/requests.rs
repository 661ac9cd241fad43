//! Counting what is asked of the API server.
//!
//! Invariant: each request is counted once, when its answer begins or it is given up: also one that is
//! dropped because it took too long.

use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use tower::{Layer, Service};

use super::{GROUP, VERSION, report};
use crate::observe::metrics::Metrics;

/// No answer came.
const NONE: &str = "none";

/// Counts the requests of the client that it is made a layer of.
pub(super) struct Counting(pub(super) Metrics);

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: self.0.clone() }
    }
}

/// A client whose requests are counted.
pub(super) struct Counted<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut count = Count {
            verb: verb(request.method(), request.uri().query()),
            resource: resource(request.uri().path()),
            code: NONE,
            metrics: self.metrics.clone(),
        };
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            if let Ok(response) = &answer {
                count.answered(response.status());
            }
            answer
        }
        .boxed()
    }
}

/// One request, which is counted when this is dropped.
struct Count {
    verb: &'static str,
    resource: &'static str,
    code: &'static str,
    metrics: Metrics,
}

impl Count {
    fn answered(&mut self, status: StatusCode) {
        self.code = class(status);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.metrics.requested(self.verb, self.resource, self.code);
    }
}

/// As RBAC has it, but for reads that are no watch, which all are `get`. A list that is streamed is a watch.
fn verb(method: &Method, query: Option<&str>) -> &'static str {
    let is_watch = query.is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
    match *method {
        Method::GET if is_watch => "watch",
        Method::GET => "get",
        Method::PATCH => "patch",
        Method::POST => "create",
        _ => "other",
    }
}

/// What a path of the API is about: a report, `/api/v1/nodes/…`, `/api/v1/namespaces/…/configmaps`,
/// `/apis/events.k8s.io/v1/namespaces/…/events`.
fn resource(path: &str) -> &'static str {
    let ours = format!("/apis/{GROUP}/{VERSION}/");
    let below = |prefix: &str| path.strip_prefix(prefix);
    let path = below("/api/v1/").or_else(|| below("/apis/events.k8s.io/v1/")).or_else(|| below(&ours));
    let mut parts = path.unwrap_or_default().split('/');
    match (parts.next(), parts.nth(1)) {
        (Some(report::PLURAL), _) => report::PLURAL,
        (Some("nodes"), _) => "nodes",
        (Some("pods"), _) => "pods",
        (Some("namespaces"), Some("configmaps")) => "configmaps",
        (Some("namespaces"), Some("events")) => "events",
        _ => "other",
    }
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future;

    use tower::{ServiceExt, service_fn};

    use super::*;

    /// Claims what a request for `path` with this `answer` counts as; without an answer, it is given up.
    fn check(method: Method, path: &str, answer: Option<u16>, expected: &str) {
        let metrics = Metrics::new();
        let server = service_fn(move |_: Request<()>| async move {
            let Some(code) = answer else { return future::pending().await };
            Ok::<_, Infallible>(Response::builder().status(code).body(()).unwrap())
        });
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let ended = Counting(metrics.clone()).layer(server).oneshot(request).now_or_never();
        assert_eq!(ended.is_some(), answer.is_some());
        let text = metrics.text();
        let counted: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("pavise_api_requests_total")).collect();
        assert_eq!(counted, [expected], "{path}");
    }

    #[test]
    fn a_request_is_counted_by_what_it_is_about_and_how_it_ended() {
        let watch = "/api/v1/namespaces/n/configmaps?&watch=true&timeoutSeconds=290";
        check(Method::GET, watch, Some(200), r#"{verb="watch",resource="configmaps",code="2xx"} 1"#);
        check(
            Method::GET,
            "/api/v1/namespaces/nodes/configmaps",
            Some(404),
            r#"{verb="get",resource="configmaps",code="4xx"} 1"#,
        );
        check(
            Method::GET,
            "/api/v1/pods?&watch=true",
            Some(200),
            r#"{verb="watch",resource="pods",code="2xx"} 1"#,
        );
        check(Method::PATCH, "/api/v1/nodes/a?", None, r#"{verb="patch",resource="nodes",code="none"} 1"#);
        check(
            Method::POST,
            "/apis/events.k8s.io/v1/namespaces/n/events?",
            Some(201),
            r#"{verb="create",resource="events",code="2xx"} 1"#,
        );
        check(
            Method::PATCH,
            "/apis/pavise.dev/v1alpha1/nodeprofilereports/a?",
            Some(200),
            r#"{verb="patch",resource="nodeprofilereports",code="2xx"} 1"#,
        );
        check(Method::PUT, "/apis/x", Some(503), r#"{verb="other",resource="other",code="5xx"} 1"#);
    }
}
