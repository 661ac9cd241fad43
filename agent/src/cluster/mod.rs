//! The API server.
//!
//! Invariant: types of kube and k8s-openapi stop here. Everybody else sees events of [`profiles::state`] and
//! statements of [`profiles::statement`]. No failure in here is fatal: it is logged with what to do about it,
//! and tried again.

pub(crate) mod bundles;
#[cfg(test)]
mod definition;
pub(crate) mod events;
pub(crate) mod lookup;
pub(crate) mod node;
pub(crate) mod nodes;
mod own_object;
pub(crate) mod pending;
pub(crate) mod pods;
pub(crate) mod profile_catalog;
pub(crate) mod report;
mod requests;
#[cfg(test)]
mod script;

use std::error::Error;
use std::time::Duration;

use anyhow::{Result, anyhow};
use kube::api::ApiResource;
use kube::client::ClientBuilder;
use kube::config::KubeConfigOptions;
use kube::runtime::watcher;
use kube::{Client, Config};

use crate::observe::metrics::Metrics;
use requests::Counting;

/// The group of our own objects, and their version.
const GROUP: &str = "pavise.dev";
const VERSION: &str = "v1alpha1";

/// The field managers of what the agents write, and the catalog. Admission policies name them.
const AGENT_MANAGER: &str = "pavise";
const CATALOG_MANAGER: &str = "pavise-catalog";

fn api_version() -> String {
    format!("{GROUP}/{VERSION}")
}

/// How our own objects of a kind are asked for.
fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: api_version(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// The API server's code for a failed request; 0 if it gave none.
fn code(error: &kube::Error) -> u16 {
    if let kube::Error::Api(status) = error { status.code } else { 0 }
}

/// What the API server is asked through.
#[derive(Clone)]
pub(crate) struct Connection(Client);

impl Connection {
    /// The namespace of what names none, as kubectl has it.
    pub(crate) fn default_namespace(&self) -> &str {
        self.0.default_namespace()
    }
}

/// How long an answer may bring nothing. The API server ends a watch after 290 seconds, as kube asks it to.
const READ_TIMEOUT: Duration = Duration::from_mins(5);

/// How a request is sent again that the API server puts off: with 429, 503 or 504.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Retries {
    /// By the caller, after the log has said what the API server says.
    ByCaller,
    /// By kube, which says nothing.
    ByKube,
}

/// Prepares to talk to the API server, without talking to it yet: for a caller that tries again what fails.
/// What will be asked of it counts in `metrics`.
pub(crate) async fn connect(metrics: Metrics) -> Result<Connection> {
    connection_of(inferred().await?, Retries::ByCaller, metrics)
}

/// The same for a caller that asks once, by a `context` of the kubeconfig if one is named.
pub(crate) async fn connect_once(context: Option<&str>) -> Result<Connection> {
    let config = match context {
        Some(context) => named(context).await?,
        None => inferred().await?,
    };
    connection_of(config, Retries::ByKube, Metrics::new())
}

async fn inferred() -> Result<Config> {
    Config::infer().await.map_err(|error| {
        let attempted = "finding the API server by KUBECONFIG, ~/.kube/config or a pod's service account";
        anyhow!("{attempted}: {}", in_full(&error))
    })
}

async fn named(context: &str) -> Result<Config> {
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    Config::from_kubeconfig(&options).await.map_err(|error| {
        anyhow!("finding the context {context} by KUBECONFIG or ~/.kube/config: {}", in_full(&error))
    })
}

fn connection_of(mut config: Config, retries: Retries, metrics: Metrics) -> Result<Connection> {
    config.read_timeout = Some(READ_TIMEOUT);
    // Without this, the time for which a connection had nothing to do counts as well.
    config.reset_reader_on_write = true;
    config.default_retry = retries == Retries::ByKube;
    let client = ClientBuilder::try_from(config)
        .map_err(|error| anyhow!("preparing a client for the API server: {}", in_full(&error)))?;
    Ok(Connection(client.with_layer(&Counting(metrics)).build()))
}

/// What to do about a failed request, which needs `permission`.
fn advice(error: &kube::Error, permission: &str) -> String {
    remedy(error, permission).unwrap_or_else(|| "trying again".to_owned())
}

/// The same for a failed watch.
fn watch_advice(error: &watcher::Error, permission: &str) -> String {
    let remedy = request_of(error).and_then(|error| remedy(error, permission));
    remedy.unwrap_or_else(|| "trying again; what was seen before still counts".to_owned())
}

/// What somebody has to do before a request can succeed, which needs `permission`. None if that is not known.
fn remedy(error: &kube::Error, permission: &str) -> Option<String> {
    match code(error) {
        401 => Some("the API server does not know this service account; check its token".to_owned()),
        // 422: a ValidatingAdmissionPolicy denies with `Invalid`, unless it gives another reason.
        403 | 422 => Some(format!("let this service account {permission}")),
        _ => None,
    }
}

/// What a failed request says. kube's own text of an answer of the API server holds all fields of the answer.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => in_full(other),
    }
}

/// What a failed watch says.
fn watch_said(error: &watcher::Error) -> String {
    request_of(error).map_or_else(|| in_full(error), said)
}

/// The request that failed, if the watch failed for one.
fn request_of(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => Some(error),
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => None,
    }
}

/// `error` with its causes. Most of kube's errors repeat their cause in their text; it is not said again.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::thread;

    use k8s_openapi::api::core::v1::Node;
    use kube::Api;
    use kube::api::ListParams;
    use kube::core::Status;

    use super::*;

    #[test]
    fn advice_is_about_what_the_api_server_refused() {
        for (code, expected) in [
            (401, "check its token"),
            (403, "let this service account dance"),
            (422, "let this service account dance"),
            (404, "trying again"),
            (500, "trying again"),
        ] {
            let error = || kube::Error::Api(Status::failure("no", "Because").with_code(code).boxed());
            let watch = watch_advice(&watcher::Error::WatchStartFailed(error()), "dance");
            for advice in [advice(&error(), "dance"), watch] {
                assert!(advice.contains(expected), "{code}: {advice}");
            }
        }
    }

    #[test]
    fn a_refusal_is_said_in_its_own_words() {
        let refused =
            kube::Error::Api(Status::failure("configmaps is forbidden", "Forbidden").with_code(403).boxed());
        assert_eq!(said(&refused), "configmaps is forbidden (403)");
        assert_eq!(watch_said(&watcher::Error::WatchFailed(refused)), "configmaps is forbidden (403)");
    }

    #[test]
    fn a_cause_is_said_once() {
        let cause = anyhow!("refused").context("connecting").context("calling: connecting");
        assert_eq!(in_full(cause.as_ref()), "calling: connecting: refused");
    }

    fn connect_to(address: SocketAddr, retries: Retries) -> Connection {
        let config = Config::new(format!("http://{address}").parse().unwrap());
        connection_of(config, retries, Metrics::new()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_nobody_answers_ends() {
        // The kernel takes the connection, and nobody reads from it.
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let nodes: Api<Node> = Api::all(connect_to(server.local_addr().unwrap(), Retries::ByCaller).0);
        let started = tokio::time::Instant::now();
        let page = ListParams::default();
        let list = tokio::time::timeout(2 * READ_TIMEOUT, nodes.list(&page)).await;
        let error = said(&list.expect("it does not end").unwrap_err());
        assert_eq!(started.elapsed().as_secs(), READ_TIMEOUT.as_secs(), "{error}");
    }

    #[tokio::test]
    async fn who_tries_again_by_itself_is_told_at_once_that_a_request_was_put_off() {
        for (retries, expected) in [(Retries::ByCaller, Err(429)), (Retries::ByKube, Ok(0))] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let nodes: Api<Node> = Api::all(connect_to(server.local_addr().unwrap(), retries).0);
            let busy = r#"{"kind": "Status", "status": "Failure", "message": "busy", "code": 429}"#;
            let empty = r#"{"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": []}"#;
            thread::spawn(move || {
                for (status, body) in [("429 Too Many Requests", busy), ("200 OK", empty)] {
                    let (mut asked, _) = server.accept().unwrap();
                    let _ = asked.read(&mut [0; 4096]).unwrap();
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
                    write!(asked, "{head}Retry-After: 1\r\n\r\n{body}").unwrap();
                }
            });
            let list = nodes.list(&ListParams::default()).await;
            let found = list.map(|list| list.items.len()).map_err(|error| code(&error));
            assert_eq!(found, expected, "{retries:?}");
        }
    }
}
