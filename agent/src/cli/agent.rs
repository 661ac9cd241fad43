//! `pavise agent`: the whole wiring of the agent on one screen.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use futures::future::{self, Either};
use futures::{FutureExt, StreamExt};
use profiles::name::{Namespace, NodeName};
use profiles::state;
use tracing::info;

use crate::cluster::{self, bundles, node::OwnNode};
use crate::host::NodeHost;
use crate::host::lock::Lock;
use crate::observe::http::{self, Listen};
use crate::observe::status::Status;
use crate::observe::{logs, signals};
use crate::sync::SyncLoop;

/// How often to look whether another agent has let go of the state directory.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The name of the Node that this agent labels.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    node_name: NodeName,

    /// The kubelet's --root-dir: profiles go to its directory `seccomp`.
    #[arg(long, env = "PAVISE_KUBELET_ROOT", default_value = "/var/lib/kubelet", value_name = "PATH")]
    kubelet_root: PathBuf,

    /// Where the agent remembers what it put on this node. It must survive the agent.
    #[arg(long, default_value = "/var/lib/pavise", value_name = "PATH")]
    state_dir: PathBuf,

    /// The namespaces to read bundles from, separated by commas. References to bundles of the first have no namespace.
    #[arg(
        long = "bundle-namespace",
        default_value = "pavise-profiles",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    bundle_namespaces: Vec<Namespace>,

    /// How long a profile and its label stay after no bundle has it any more, such as 300s or 5m.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    removal_delay: Duration,

    /// Where /healthz, /readyz and /metrics are served: `[::]` is all addresses, `none` instead serves nothing.
    // The port is below those that Kubernetes and the kernel hand out, and none of the kubelet's or of a well-known
    // exporter's: the agent may be on the node's network.
    #[arg(long, default_value = "[::]:7284", value_name = "ADDRESS:PORT")]
    listen: Listen,

    /// How log lines are written. `RUST_LOG` filters them, as in `RUST_LOG=pavise=debug`.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logs::Format,
}

impl Arguments {
    /// What the rules need to know of it.
    fn rules(&self) -> Result<state::Config> {
        let (home, others) = self
            .bundle_namespaces
            .split_first()
            .context("--bundle-namespace needs at least one namespace")?;
        Ok(state::Config {
            home: home.clone(),
            others: others.iter().filter(|other| *other != home).cloned().collect(),
            removal_delay: self.removal_delay,
        })
    }
}

/// Runs the agent until it is told to stop.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let rules = arguments.rules()?;
    logs::start(arguments.log_format)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the asynchronous runtime")?.block_on(serve(arguments, rules))
}

async fn serve(arguments: Arguments, rules: state::Config) -> Result<()> {
    let stop = signals::stop().context("listening for SIGTERM and SIGINT")?.shared();
    let Either::Left((lock, _)) =
        future::select(lock(&arguments.state_dir).boxed_local(), stop.clone()).await
    else {
        return Ok(());
    };
    let lock = lock?;
    let status = Arc::new(Status::new());
    http::start(arguments.listen, status.clone()).await?;
    let host = NodeHost::open(&arguments.kubelet_root, &arguments.state_dir, lock)?;
    let client = cluster::connect(status.metrics.clone()).await?;
    info!(node = %arguments.node_name, version = env!("CARGO_PKG_VERSION"), "Agent started");

    let node = OwnNode::new(client.clone(), arguments.node_name);
    let mut events = vec![node.watch().boxed_local()];
    for namespace in rules.namespaces() {
        events.push(bundles::watch(client.clone(), namespace.clone()).boxed_local());
    }
    let write_labels = move |change| node.write(change).boxed_local();
    let changes = host.changes();
    SyncLoop::new(host, rules, events, changes, write_labels, status).run(stop).await?;
    info!("Agent stopped");
    Ok(())
}

/// Waits until no other agent acts on this node.
async fn lock(state_dir: &Path) -> Result<Lock> {
    let mut is_first = true;
    loop {
        if let Some(lock) = Lock::try_take(state_dir)? {
            return Ok(lock);
        }
        if std::mem::take(&mut is_first) {
            info!(state_dir = %state_dir.display(), "Waiting for another agent to stop");
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli;

    /// Claims what `arguments`, after `pavise agent --node-name n`, are understood as.
    fn check(arguments: &[&str], expected: Result<(&str, &[&str], u64), ()>) {
        let all = ["pavise", "agent", "--node-name", "n"].iter().chain(arguments);
        let understood = cli::Arguments::try_parse_from(all).map_err(drop).map(|parsed| {
            let cli::Command::Agent(parsed) = parsed.command else { panic!("another command") };
            let rules = parsed.rules().unwrap();
            let others: Vec<String> = rules.others.iter().map(ToString::to_string).collect();
            (rules.home.to_string(), others, rules.removal_delay.as_secs())
        });
        let expected = expected.map(|(home, others, delay)| {
            (home.to_owned(), others.iter().map(ToString::to_string).collect::<Vec<_>>(), delay)
        });
        assert_eq!(understood, expected, "{arguments:?}");
    }

    #[test]
    fn the_first_bundle_namespace_is_home() {
        check(&[], Ok(("pavise-profiles", &[], 300)));
        check(&["--bundle-namespace", "b,a,b"], Ok(("b", &["a"], 300)));
        check(&["--bundle-namespace=b", "--bundle-namespace=a"], Ok(("b", &["a"], 300)));
    }

    #[test]
    fn the_removal_delay_is_a_human_duration() {
        check(&["--removal-delay", "0s"], Ok(("pavise-profiles", &[], 0)));
        check(&["--removal-delay", "1h 5m"], Ok(("pavise-profiles", &[], 3900)));
        check(&["--removal-delay", "5"], Err(()));
    }

    #[test]
    fn names_are_checked_where_they_are_typed() {
        check(&["--bundle-namespace", "Not_Valid"], Err(()));
        check(&["--bundle-namespace", ""], Err(()));
    }
}
