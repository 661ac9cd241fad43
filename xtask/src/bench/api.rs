//! The API server over HTTPS, in this process: starting kubectl takes longer than what is measured.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
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
        let url = format!("{}/api/v1/namespaces/{PROFILES}/configmaps", self.server);
        let request = self.agent.post(url).content_type("application/json");
        answer(request.send(bundle)).context("creating a bundle").map(drop)
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
        let url = format!(
            "{}/api/v1/nodes?watch=true&fieldSelector=metadata.name={node}&timeoutSeconds={}",
            self.server,
            PATIENCE.as_secs()
        );
        let response = self.agent.get(url).header("accept", METADATA).call().context("watching the Node")?;
        let lines = BufReader::new(response.into_body().into_reader()).lines();
        Ok(lines.map(|line| {
            let line = line.context("watching the Node")?;
            let told = Instant::now();
            let event: Value = serde_json::from_str(&line).context("reading what became of the Node")?;
            Ok((told, labels_of(&event["object"])))
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
