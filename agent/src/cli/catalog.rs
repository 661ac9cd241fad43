//! `pavise catalog`: says on each bundle what is wrong with it, once for all nodes, keeps the object
//! `ProfileCatalog`, which has what bundles declare, and says on pods why they wait for a profile.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use futures::future::LocalBoxFuture;
use futures::{FutureExt, StreamExt, stream};
use profiles::bundle::Document;
use profiles::catalog::declaring::Declaring;
use profiles::catalog::outline::Outlines;
use profiles::diagnostic::Diagnostic;
use profiles::name::Namespace;
use profiles::saying::{self, Write};
use tracing::info;

use super::{BundleNamespaces, block_on};
use crate::catalog::{self, object::Object};
use crate::cluster::profile_catalog::Keeper;
use crate::cluster::{self, Connection, bundles, events, lookup, nodes, pending};
use crate::compiler::client::Client;
use crate::compiler::queue::Queue;
use crate::compiler::verdict::verdict;
use crate::compiler::{self, Toolchain};
use crate::observe::metrics::Metrics;
use crate::observe::{logs, signals};

/// How much memory all Nodes may take, in bytes. The catalog has 128 MiB.
const MOST_OF_NODES: usize = 32 << 20;
/// How long a list of all Nodes may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// What the user typed.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bundle_namespaces: BundleNamespaces,

    /// Also write Events on pods that wait for a profile that no node has. For clusters where pods select on
    /// the labels of their profiles.
    #[arg(long)]
    pending_pods: bool,
    /// How long a reference counts as declared after no bundle has it any more, such as 300s or 5m: as long
    /// as the agents keep the profile.
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    removal_delay: Duration,

    /// The name of this pod, which its Events carry.
    #[arg(long, env = "POD_NAME", default_value = "pavise-catalog", value_name = "NAME")]
    pod_name: String,

    /// Where the compiler of AppArmor texts listens (see `pavise compiler`).
    #[arg(long, default_value = compiler::SOCKET, value_name = "PATH")]
    compiler: PathBuf,

    /// How log lines are written. `RUST_LOG` filters them, as in `RUST_LOG=pavise=debug`.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: logs::Format,
}

/// Runs the catalog until it is told to stop.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    block_on(arguments.log_format, serve(arguments))
}

async fn serve(arguments: Arguments) -> Result<()> {
    let stop = signals::stop().context("listening for SIGTERM and SIGINT")?;
    let client = cluster::connect(Metrics::new()).await?;
    info!(version = env!("CARGO_PKG_VERSION"), "Catalog started");

    let home = arguments.bundle_namespaces.home()?.clone();
    let namespaces: BTreeSet<Namespace> = arguments.bundle_namespaces.names.into_iter().collect();
    let declaring = Declaring::new(home.clone(), namespaces.clone(), arguments.removal_delay);
    let keeper = Rc::new(Keeper::new(client.clone()));
    let object = Object::new(declaring, move |request| {
        let keeper = keeper.clone();
        async move { keeper.ask(request).await }.boxed_local()
    });
    // Nothing of bundles is kept for pods that nobody asks about.
    let outlines = Rc::new(RefCell::new(Outlines::new(home, namespaces.clone())));
    let kept = arguments.pending_pods.then(|| outlines.clone());
    let watched = client.clone();
    let watching = kept.clone();
    let watch = move |platforms: BTreeSet<_>| {
        let judged = |namespace: &Namespace| {
            bundles::judged(watched.clone(), namespace.clone(), platforms.clone()).boxed_local()
        };
        let kept = watching.clone();
        let note_down = move |seen: &_| {
            if let Some(outlines) = &kept {
                catalog::pending::note_down(outlines, seen);
            }
        };
        stream::select_all(namespaces.iter().map(judged)).inspect(note_down).boxed_local()
    };
    let compiler = Rc::new(Client::new(arguments.compiler));
    let compile = move |document: Document| {
        let (text, kept) = (document.digest(), kept.clone());
        let found = compile(compiler.clone(), document);
        async move {
            let found = found.await?;
            if let Some(outlines) = &kept {
                outlines.borrow_mut().compiled(text, &found);
            }
            Ok(found)
        }
        .boxed_local()
    };
    let writer = Rc::new(events::Writer::of_catalog(client.clone(), &arguments.pod_name));
    let write = move |write| {
        let writer = writer.clone();
        async move { writer.write(&write).await }.boxed_local()
    };
    let explaining = async {
        if arguments.pending_pods {
            explain(client.clone(), &outlines, write.clone()).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let compiling = Queue::new(compiler::at_once(), compile);
    let judging =
        catalog::run(nodes::platforms(client.clone()), watch, compiling, write.clone(), object, stop);
    tokio::select! {
        () = judging => {}
        () = explaining => {}
    }
    info!("Catalog stopped");
    Ok(())
}

/// Says on pods why they wait, for ever.
async fn explain(
    client: Connection,
    outlines: &RefCell<Outlines>,
    write: impl Fn(Write) -> LocalBoxFuture<'static, saying::Outcome>,
) {
    let pods = pending::watch(client.clone());
    let nodes = move |keys: Arc<BTreeSet<String>>| {
        let client = client.clone();
        async move {
            let nodes = lookup::nodes(client, |key| keys.contains(key), MOST_OF_NODES);
            let answer = tokio::time::timeout(LOOK_TIMEOUT, nodes).await;
            answer.with_context(|| format!("listing Nodes: no answer for {LOOK_TIMEOUT:?}"))?
        }
        .boxed_local()
    };
    catalog::pending::run(pods, outlines, nodes, write).await;
}

/// What is found when `document` is compiled.
async fn compile(compiler: Rc<Client>, document: Document) -> Result<Vec<Diagnostic>> {
    let path = Toolchain::of_the_image().features();
    let features = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let text = document.text();
    let answer = compiler.compile(&text, &features).await?;
    Ok(verdict(&text, document.names(), answer).into_findings())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli;

    #[test]
    fn the_arguments_of_the_agent_that_it_shares_are_understood() {
        for (arguments, expected) in [
            (&[][..], Some(&["pavise-profiles"][..])),
            (&["--bundle-namespace=pavise-profiles,team-a"], Some(&["pavise-profiles", "team-a"])),
            (&["--bundle-namespace", "Not_Valid"], None),
        ] {
            let all = ["pavise", "catalog"].iter().chain(arguments);
            let understood = cli::Arguments::try_parse_from(all).ok().map(|parsed| {
                let cli::Command::Catalog(parsed) = parsed.command else { panic!("another command") };
                parsed.bundle_namespaces.names.iter().map(ToString::to_string).collect::<Vec<_>>()
            });
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(understood, expected, "{arguments:?}");
        }
    }
}
