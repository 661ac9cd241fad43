//! The API server over HTTPS, in this process: starting kubectl takes longer than what is measured.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::pavise::{PROFILES, SYSTEM};
use ureq::http::{Response, StatusCode};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Has the API server leave out of an object what is not its metadata.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
/// Where the Events of pods are.
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
/// What makes a ConfigMap a bundle, as a part of a URL.
const BUNDLES: &str = "labelSelector=pavise.dev/profiles";

/// A client with the identity of the cluster's administrator, and a connection that stays open.
pub(super) struct Api {
    agent: Agent,
    server: String,
}

impl Api {
    pub(super) fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let text = fs::read(cluster.layout().admin_kubeconfig()).context("reading the kubeconfig")?;
        let kubeconfig: Value = serde_json::from_slice(&text).context("reading the kubeconfig")?;
        let file = |path: &Value| {
            let path = path.as_str().context("the kubeconfig names no file for a certificate or key")?;
            fs::read(path).with_context(|| format!("reading {path}"))
        };
        let user = &kubeconfig["users"][0]["user"];
        let certificate = Certificate::from_pem(&file(&user["client-certificate"])?)?;
        let key = PrivateKey::from_pem(&file(&user["client-key"])?)?;
        let authority =
            Certificate::from_pem(&file(&kubeconfig["clusters"][0]["cluster"]["certificate-authority"])?)?;
        let tls = TlsConfig::builder()
            .client_cert(Some(ClientCert::new_with_certs(&[certificate], key)))
            .root_certs(RootCerts::new_with_certs(&[authority]))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build();
        Ok(Self { agent: config.new_agent(), server: cluster.server() })
    }

    /// Creates a bundle, given as JSON. Returns when the API server has answered.
    pub(super) fn create(&self, bundle: &str) -> anyhow::Result<()> {
        self.create_in(&format!("/api/v1/namespaces/{PROFILES}/configmaps"), bundle)
    }

    /// Creates any object, given as JSON, where the API server has those of its kind.
    pub(super) fn create_in(&self, path: &str, object: &str) -> anyhow::Result<()> {
        let request = self.agent.post(format!("{}{path}", self.server)).content_type("application/json");
        answer(request.send(object)).with_context(|| format!("creating an object in {path}")).map(drop)
    }

    /// Changes an object by a JSON merge patch (RFC 7386).
    pub(super) fn patch(&self, path: &str, change: &str) -> anyhow::Result<()> {
        let request = self.agent.patch(format!("{}{path}", self.server));
        let request = request.content_type("application/merge-patch+json");
        answer(request.send(change)).with_context(|| format!("patching {path}")).map(drop)
    }

    /// Deletes all bundles.
    pub(super) fn delete_bundles(&self) -> anyhow::Result<()> {
        let url = format!("{}/api/v1/namespaces/{PROFILES}/configmaps?{BUNDLES}", self.server);
        answer(self.agent.delete(url).call()).context("deleting the bundles").map(drop)
    }

    /// The log of the agent, of which there is one.
    pub(super) fn agent_log(&self) -> anyhow::Result<String> {
        let pods = format!("{}/api/v1/namespaces/{SYSTEM}/pods", self.server);
        let list = answer(self.agent.get(&pods).call()).context("listing the agent's pods")?;
        let list: Value = serde_json::from_str(&list).context("reading the list of the agent's pods")?;
        let name = list["items"][0]["metadata"]["name"].as_str().context("there is no pod of the agent")?;
        answer(self.agent.get(format!("{pods}/{name}/log")).call()).context("reading the agent's log")
    }

    /// The labels of Pavise that a Node has.
    pub(super) fn labels(&self, node: &str) -> anyhow::Result<BTreeSet<String>> {
        let url = format!("{}/api/v1/nodes/{node}", self.server);
        let text = answer(self.agent.get(url).header("accept", METADATA).call());
        let node = serde_json::from_str(&text.context("reading the Node")?).context("reading the Node")?;
        Ok(labels_of(&node))
    }

    /// The same each time that the Node changes, with the moment at which it was told; first, as they are.
    pub(super) fn watch_labels(
        &self,
        node: &str,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(Instant, BTreeSet<String>)>> + use<>> {
        let told = self.watch(&format!("/api/v1/nodes?fieldSelector=metadata.name={node}"), METADATA)?;
        Ok(told.map(|told| told.map(|(at, node)| (at, labels_of(&node)))))
    }

    /// The reason of each Event about the pod `name` from now on, with the moment at which it was told.
    pub(super) fn watch_events(
        &self,
        name: &str,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(Instant, String)>> + use<>> {
        let told =
            self.watch(&format!("{EVENTS}?fieldSelector=regarding.name={name}"), "application/json")?;
        let reason = |event: Value| event["reason"].as_str().unwrap_or_default().to_owned();
        Ok(told.map(move |told| told.map(|(at, event)| (at, reason(event)))))
    }

    /// How many Events have this reason.
    pub(super) fn events(&self, reason: &str) -> anyhow::Result<usize> {
        let list = answer(self.agent.get(format!("{}{EVENTS}", self.server)).call());
        let list =
            serde_json::from_str::<Value>(&list.context("listing Events")?).context("reading Events")?;
        let events = list["items"].as_array().into_iter().flatten();
        Ok(events.filter(|event| event["reason"] == reason).count())
    }

    /// Each object that was changed, with the moment at which that was told. The path has a query.
    fn watch(
        &self,
        path: &str,
        accept: &str,
    ) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(Instant, Value)>> + use<>> {
        let what = format!("watching {path}");
        let url = format!("{}{path}&watch=true&timeoutSeconds={}", self.server, PATIENCE.as_secs());
        let response = self.agent.get(url).header("accept", accept).call().with_context(|| what.clone())?;
        ensure!(response.status() == StatusCode::OK, "{what}: the API server answers {}", response.status());
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        Ok(lines.map(move |line| {
            let line = line.with_context(|| what.clone())?;
            let told = Instant::now();
            let mut event: Value = serde_json::from_str(&line).with_context(|| what.clone())?;
            Ok((told, event["object"].take()))
        }))
    }
}

/// The text of an answer that is a success.
fn answer(response: Result<Response<Body>, ureq::Error>) -> anyhow::Result<String> {
    let mut response = response?;
    let text = response.body_mut().read_to_string()?;
    match response.status() {
        StatusCode::OK | StatusCode::CREATED => Ok(text),
        status => bail!("the API server answers {status}: {text}"),
    }
}

fn labels_of(node: &Value) -> BTreeSet<String> {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    labels.map(|(key, _)| key.clone()).filter(|key| key.contains("pavise.dev/")).collect()
}
