//! `pavise agent`: the whole wiring of the agent on one screen.

mod apparmor;
mod source;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::future::{self, Either};
use futures::{FutureExt, StreamExt, stream};
use profiles::name::NodeName;
use profiles::platform::AppArmor;
use profiles::state;
use tracing::info;

use super::{BundleNamespaces, Outcome, block_on};
use crate::host::lock::Lock;
use crate::host::{NodeHost, platform};
use crate::observe::http::{self, Listen};
use crate::observe::status::Status;
use crate::observe::{logs, signals};
use crate::sync::SyncLoop;
use apparmor::Apparmor;
use source::{Connections, Source};

/// How often to look whether another agent has let go of the state directory.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The port is below those that Kubernetes and the kernel hand out, and none of the kubelet's or of a
/// well-known exporter's: the agent may be on the node's network.
const ALL_ADDRESSES: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 7284);

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Where bundles come from: the cluster's ConfigMaps, or a directory of files PATH/<bundle>/<key>, for
    /// which no cluster is needed and no Node is labelled.
    #[arg(long, default_value = "cluster", value_name = "cluster|dir:PATH")]
    source: Source,

    /// The name of the Node that this agent labels. Needed unless bundles come from a directory.
    #[arg(
        long,
        env = "NODE_NAME",
        value_name = "NAME",
        required_unless_present = "source",
        required_if_eq("source", "cluster")
    )]
    node_name: Option<NodeName>,

    /// The name of this pod, for the Node's report.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pod_name: Option<String>,

    /// Do all that can be done now, and exit: with 0 if all profiles that bundles ask for are served, with 1
    /// if not.
    #[arg(long)]
    once: bool,

    /// The kubelet's --root-dir: profiles go to its directory `seccomp`.
    #[arg(long, env = "PAVISE_KUBELET_ROOT", default_value = "/var/lib/kubelet", value_name = "PATH")]
    kubelet_root: PathBuf,

    /// Where the agent remembers what it put on this node. It must survive the agent.
    #[arg(long, default_value = "/var/lib/pavise", value_name = "PATH")]
    state_dir: PathBuf,

    /// Where the node's procfs is mounted: its processes say whether containers run under their profiles, and
    /// an AppArmor profile is not removed while one runs under it.
    #[arg(long, default_value = "/proc", value_name = "PATH")]
    proc: PathBuf,

    #[command(flatten)]
    bundle_namespaces: BundleNamespaces,

    /// How long a profile and its label stay after no bundle has it any more, such as 300s or 5m.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    removal_delay: Duration,

    /// Where /healthz, /readyz and /metrics are served. `[::]` means all addresses; `none` serves nothing
    /// [default: [::]:7284; none for bundles from a directory, and with --once].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<Listen>,

    #[command(flatten)]
    apparmor: apparmor::Arguments,

    /// How log lines are written. `RUST_LOG` filters them, as in `RUST_LOG=pavise=debug`.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logs::Format,
}

impl Arguments {
    /// What the rules need to know of it.
    fn rules(&self) -> Result<state::Config> {
        let home = self.bundle_namespaces.home()?;
        let others = self.bundle_namespaces.names.iter().filter(|other| *other != home);
        Ok(state::Config {
            home: home.clone(),
            others: others.cloned().collect(),
            removal_delay: self.removal_delay,
            node: self.node_name.clone().filter(|_| self.source == Source::Cluster),
            apparmor: AppArmor::Unknown,
        })
    }

    /// Where to answer probes. Who is run by hand, or by an init container, has none, and need not have the
    /// port.
    fn listen(&self) -> Listen {
        let has_probes = self.source == Source::Cluster && !self.once;
        self.listen.unwrap_or(if has_probes { Listen::At(ALL_ADDRESSES) } else { Listen::Nowhere })
    }
}

/// Runs the agent until it is told to stop, or has done all.
///
/// # Errors
/// The node's disk is out of reach, or something that is needed for the start. To be told to stop is one if
/// the agent was to end by itself.
pub(crate) fn run(arguments: Arguments) -> Result<Outcome> {
    let rules = arguments.rules()?;
    block_on(arguments.log_format, serve(arguments, rules))
}

async fn serve(arguments: Arguments, rules: state::Config) -> Result<Outcome> {
    let stop = signals::stop().context("listening for SIGTERM and SIGINT")?.shared();
    let Either::Left((lock, _)) =
        future::select(lock(&arguments.state_dir).boxed_local(), stop.clone()).await
    else {
        return stopped(arguments.once);
    };
    let lock = lock?;
    let status = Arc::new(Status::new());
    http::start(arguments.listen(), status.clone()).await?;
    let host = NodeHost::open(&arguments.kubelet_root, &arguments.state_dir, lock)?;
    let platform = platform::of_this_machine()?;
    let apparmor = match &arguments.source {
        Source::Cluster => arguments.apparmor.open(&arguments.state_dir, &arguments.proc)?,
        Source::Directory(_) => Apparmor::OutOfReach,
    };
    let rules = state::Config { apparmor: apparmor.kind(), ..rules };
    let host = host.with_proc(arguments.proc.clone(), rules.has_apparmor());
    let Connections { events, write_node, announcer, report } = match &arguments.source {
        Source::Cluster => {
            let node = arguments.node_name.context("--node-name is missing")?;
            source::cluster(node, arguments.pod_name, platform, &rules, status.metrics.clone()).await?
        }
        Source::Directory(path) if host.puts_profiles_into(path) => bail!(
            "serving the bundles in {} (see --source): the agent puts profiles there itself, and would serve what it \
             wrote; keep bundles elsewhere",
            path.display()
        ),
        Source::Directory(path) => source::directory(path, platform, &rules)?,
    };
    let (policies, policy_changes) = match apparmor {
        Apparmor::Enabled { policies, changes } => (Some(policies), changes),
        Apparmor::Disabled | Apparmor::OutOfReach => (None, stream::pending().boxed()),
    };
    let changes = stream::select(host.changes(), policy_changes);
    let sync = SyncLoop::new(host, policies, rules, events, changes, write_node, status);
    if arguments.once {
        return match sync.run_once(stop).await? {
            Some(true) => Ok(Outcome::Done),
            Some(false) => Ok(Outcome::Refused),
            None => stopped(true),
        };
    }
    sync.announcing(announcer).reporting_to(report).run(stop).await?;
    stopped(false)
}

/// The agent was told to stop. One that is to do its work `once` has not done it then.
fn stopped(once: bool) -> Result<Outcome> {
    if once {
        bail!("told to stop before all was done; what was done stays");
    }
    info!("Agent stopped");
    Ok(Outcome::Done)
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
    fn a_directory_needs_no_name_of_a_node_and_a_cluster_does() {
        let check = |arguments: &[&str], expected: Result<Source, &str>| {
            let understood = cli::Arguments::try_parse_from(["pavise", "agent"].iter().chain(arguments));
            match (understood.map(|parsed| parsed.command), expected) {
                (Ok(cli::Command::Agent(parsed)), Ok(expected)) => {
                    assert_eq!(parsed.source, expected);
                    let has_node = expected == Source::Cluster;
                    assert_eq!(parsed.rules().unwrap().has_node(), has_node);
                    assert_eq!(parsed.listen() != Listen::Nowhere, has_node);
                }
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{arguments:?}: {error}");
                }
                (understood, expected) => panic!("{arguments:?}: {understood:?} is not {expected:?}"),
            }
        };
        check(&["--source=dir:x/y"], Ok(Source::Directory("x/y".into())));
        check(&["--source=cluster", "--node-name=n"], Ok(Source::Cluster));
        check(&["--node-name=n"], Ok(Source::Cluster));
        for arguments in [&[][..], &["--source=cluster"]] {
            check(arguments, Err("--node-name <NAME>"));
        }
        check(&["--source=dir:"], Err("the path is missing"));
        check(&["--source=x"], Err("neither cluster nor dir:PATH"));
    }

    #[test]
    fn names_are_checked_where_they_are_typed() {
        check(&["--bundle-namespace", "Not_Valid"], Err(()));
        check(&["--bundle-namespace", ""], Err(()));
    }
}
