//! The platforms of all Nodes.
//!
//! Invariant: a few Nodes are held at a time, and nothing of them is kept but which platforms there are.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{Stream, stream};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use profiles::platform::Platform;
use tracing::{info, warn};

use super::{Connection, advice, said};

/// Between two looks at the Nodes. A kind of node that joins for the first time is an event of years.
const PAUSE: Duration = Duration::from_mins(10);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// A Node is some 15 KiB of JSON, most of it its images.
const PAGE: u32 = 50;

/// The platforms, once they are known and whenever they have changed, for ever.
pub(crate) fn platforms(client: Connection) -> impl Stream<Item = BTreeSet<Platform>> {
    let looker =
        Looker { nodes: Api::all(client.0), known: BTreeSet::new(), complaint: None, pause: Duration::ZERO };
    stream::unfold(looker, |mut looker| async {
        let platforms = looker.next().await;
        Some((platforms, looker))
    })
}

struct Looker {
    nodes: Api<Node>,
    known: BTreeSet<Platform>,
    /// What the log last said is wrong.
    complaint: Option<String>,
    /// How long to wait before the next look.
    pause: Duration,
}

impl Looker {
    async fn next(&mut self) -> BTreeSet<Platform> {
        loop {
            tokio::time::sleep(self.pause).await;
            self.pause = PAUSE_AFTER_FAILURE;
            match list(&self.nodes).await {
                Ok(platforms) if platforms.is_empty() => {
                    self.complain("no Linux Node says its architecture and kernel", "trying again");
                }
                Ok(platforms) => {
                    self.pause = PAUSE;
                    self.complaint = None;
                    if platforms != self.known {
                        let shown: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                        info!(platforms = shown.join(", "), "Platforms of the Nodes");
                        self.known.clone_from(&platforms);
                        return platforms;
                    }
                }
                Err(error) => self.complain(&said(&error), &advice(&error, "list Nodes")),
            }
        }
    }

    fn complain(&mut self, error: &str, advice: &str) {
        if self.complaint.as_deref() == Some(error) {
            return;
        }
        self.complaint = Some(error.to_owned());
        if self.known.is_empty() {
            warn!(error, advice, "Platforms of the Nodes are unknown; no bundle is checked yet");
        } else {
            warn!(
                error,
                advice, "Platforms of the Nodes can't be read; bundles are checked for those known before"
            );
        }
    }
}

/// Page by page. The API server ignores the limit of a list with `resourceVersion=0`, and would send all
/// Nodes at once.
async fn list(nodes: &Api<Node>) -> kube::Result<BTreeSet<Platform>> {
    let mut platforms = BTreeSet::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = nodes.list(&page).await?;
        platforms.extend(list.items.iter().filter_map(platform));
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => return Ok(platforms),
        }
    }
}

/// That of a Node which runs Linux and says what it is. A virtual node may not, and confines nothing.
fn platform(node: &Node) -> Option<Platform> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    let is_linux = info.operating_system == "linux";
    let platform =
        Platform { architecture: info.architecture.parse().ok()?, kernel: info.kernel_version.parse().ok()? };
    is_linux.then_some(platform)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(system: &str, architecture: &str, kernel: &str, expected: Option<&str>) {
        let node = json!({
            "metadata": {"name": "n"},
            "status": {"nodeInfo": {
                "operatingSystem": system, "architecture": architecture, "kernelVersion": kernel,
                "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
                "machineID": "", "osImage": "", "systemUUID": "",
            }},
        });
        let found = platform(&serde_json::from_value(node).unwrap());
        assert_eq!(found.as_ref().map(ToString::to_string).as_deref(), expected);
    }

    #[test]
    fn a_linux_node_says_its_platform() {
        check("linux", "arm64", "6.12.0-9-cloud-arm64", Some("arm64 with kernel 6.12"));
        check("windows", "amd64", "10.0.20348.2762", None);
        check("linux", "", "", None);
        check("linux", "amd64", "N/A", None);
        assert_eq!(platform(&Node::default()), None);
    }
}
