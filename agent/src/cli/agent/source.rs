//! Where the agent's bundles come from, and what it writes to the Node with.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;

use anyhow::Result;
use futures::future::{self, LocalBoxFuture};
use futures::stream::LocalBoxStream;
use futures::{FutureExt, StreamExt};
use profiles::name::NodeName;
use profiles::plan::NodeWrite;
use profiles::platform::Platform;
use profiles::report::Agent;
use profiles::state::{Config, Event};
use tracing::info;

use crate::cluster::{self, bundles, events, node::OwnNode, pods, report::Reporter};
use crate::directory::BundleDirectory;
use crate::observe::metrics::Metrics;
use crate::sync::announce::Announcer;
use crate::sync::report::Outlet;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the user typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// ConfigMaps.
    Cluster,
    /// The directories in this one.
    Directory(PathBuf),
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("dir:") {
            Some("") => Err("the path is missing: dir:PATH"),
            Some(path) => Ok(Self::Directory(path.into())),
            None if text == "cluster" => Ok(Self::Cluster),
            None => Err("it is neither cluster nor dir:PATH, such as dir:./bundles"),
        }
    }
}

/// What the loop is connected with.
pub(super) struct Connections {
    pub(super) events: Vec<LocalBoxStream<'static, Event>>,
    pub(super) write_node: Box<dyn Fn(NodeWrite) -> LocalBoxFuture<'static, Vec<Event>>>,
    /// None where there are no pods to speak of.
    pub(super) announcer: Option<Announcer>,
    /// None where there is no Node to report on.
    pub(super) report: Option<Outlet>,
}

/// Connects with the API server, of which nothing is asked yet. What will be counts in `metrics`.
pub(super) async fn cluster(
    node: NodeName,
    pod: Option<String>,
    platform: Platform,
    rules: &Config,
    metrics: Metrics,
) -> Result<Connections> {
    let client = cluster::connect(metrics).await?;
    info!(%node, version = VERSION, "Agent started");
    let mut events = vec![pods::watch(client.clone(), &node).boxed_local()];
    let writer = Rc::new(events::Writer::of_agent(client.clone(), &node));
    let write_event = move |write| {
        let writer = writer.clone();
        async move { writer.write(&write).await }.boxed_local()
    };
    let announcer = Some(Announcer::new(&node, Box::new(write_event)));
    let node = OwnNode::new(client.clone(), node);
    events.push(node.watch().boxed_local());
    for namespace in rules.namespaces() {
        events.push(bundles::watch(client.clone(), namespace.clone(), platform).boxed_local());
    }
    let reporter = Rc::new(Reporter::new(client, &node));
    let ask = move |request| {
        let reporter = reporter.clone();
        async move { reporter.ask(request).await }.boxed_local()
    };
    let agent = Agent { version: VERSION.to_owned(), pod };
    Ok(Connections {
        events,
        write_node: Box::new(move |write| node.write(write).boxed_local()),
        announcer,
        report: Some(Outlet { agent, platform, ask: Box::new(ask) }),
    })
}

/// Connects with a directory of bundles.
pub(super) fn directory(path: &Path, platform: Platform, rules: &Config) -> Result<Connections> {
    let bundles = BundleDirectory::open(path, &rules.home, &rules.others, platform)?;
    info!(source = %path.display(), version = VERSION, "Agent started");
    // Where there is no Node, no write to it is ever planned.
    let write_node = |_| future::pending().boxed_local();
    Ok(Connections {
        events: vec![bundles.watch().boxed_local()],
        write_node: Box::new(write_node),
        announcer: None,
        report: None,
    })
}
