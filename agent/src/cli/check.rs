//! `pavise check`: says on which nodes pods find the profiles that they refer to, and what is missing; or, with
//! a level, which pods would be refused.
//!
//! Invariant: nothing is changed, neither in the cluster nor on this machine. What is in manifests is read
//! before the cluster is asked anything, and no cluster is asked if there is nothing to ask.

mod level;
mod manifests;
mod shown;

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgGroup, Args, ValueEnum};
use profiles::name::Namespace;
use profiles::placement::{Bundles, Cluster, Constraints, Placement};
use profiles::pod::{Asked, Limits, Pod};
use profiles::verdicts::Verdicts;

use super::{BundleNamespaces, Outcome, block_on};
use crate::cluster::lookup::{Failed, FoundPod, Owner};
use crate::cluster::{self, Connection, lookup};
use crate::host::platform;
use crate::observe::logs;
use level::Demand;
use manifests::Manifests;

/// What a script wants to know, and what the answer is about.
const AFTER_HELP: &str = "\
The answer is by the labels that Pavise has put on Nodes, and is about now. Profiles that something else put on
nodes have no label, and count as missing. Taints, cordons and resources are not looked at.

With --level it is about something else: which pods the API server would refuse if that level were enforced, and
what is wrong with them. Nodes and their labels are not looked at then.

Exit codes: 0 if each reference resolves on every node that its pod can be on, or no pod would be refused; 1 if
one does not, or one would be, or if something can't be read; 2 if the arguments are wrong";

/// What the user typed.
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
#[command(group = ArgGroup::new("pods").required(true).args(["paths", "namespace", "all_namespaces"]))]
pub(crate) struct Arguments {
    /// Manifests of pods, or of what makes pods, in YAML or JSON; directories of such files; - for standard
    /// input. Can be given several times. Of a directory, every file below it is read that ends with .yaml,
    /// .yml or .json. Objects that make no pods are passed over.
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,

    /// Check the pods that are in this namespace of the cluster now.
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<Namespace>,

    /// Check the pods that are in the cluster now.
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Say which pods would be refused if this level were enforced where they are, and what is wrong with them:
    /// of manifests, or of pods that run now and would be made again.
    #[arg(long, value_enum, value_name = "LEVEL")]
    level: Option<Demand>,

    #[command(flatten)]
    bundle_namespaces: BundleNamespaces,

    /// The context of the kubeconfig to use, unless it is the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// How the answer is written.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object.
    Json,
}

/// A pod, or what makes pods.
#[derive(Debug)]
struct Workload {
    /// The file and line that it was read from; none if it is in the cluster.
    place: Option<String>,
    kind: String,
    namespace: Option<String>,
    name: String,
    /// What makes it, if it is a pod in the cluster.
    owner: Option<Owner>,
    /// Where its pods' `spec` is in it.
    path: &'static str,
    pod: Pod,
    constraints: Constraints,
}

impl Workload {
    fn found(found: FoundPod) -> Self {
        let FoundPod { namespace, name, owner, pod, constraints } = found;
        let namespace = Some(namespace);
        let (kind, path) = ("Pod".to_owned(), "spec");
        Self { place: None, kind, namespace, name, owner, path, pod, constraints }
    }

    /// Whether there is anything to check.
    fn has_references(&self) -> bool {
        let is_reference = |asked: &Asked| matches!(asked, Asked::Localhost(_) | Asked::Unknown(_));
        let refers = |pod: &Pod| {
            pod.containers.iter().any(|one| is_reference(&one.seccomp) || is_reference(&one.apparmor))
        };
        self.pod.unchecked > 0 || refers(&self.pod)
    }
}

/// What is said of all of them.
struct Answer<'c> {
    /// Those with references, and what comes of them.
    checked: Vec<(&'c Workload, Placement<'c>)>,
    /// How many workloads there are without references.
    without: usize,
    /// How many objects make no pods.
    others: usize,
}

/// Prints on which nodes each reference resolves.
///
/// # Errors
/// A manifest can't be read, or there are no pods in any, or the API server does not answer. What can be read
/// is checked first.
pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let limits = if arguments.level.is_some() { Limits::NONE } else { Limits::BOUNDED };
    let mut manifests = Manifests { limits, ..Manifests::default() };
    arguments.paths.iter().for_each(|path| manifests.read(path));
    if manifests.workloads.is_empty() && !arguments.paths.is_empty() {
        bail!(nothing_to_check(arguments, &manifests));
    }
    let mut failures = std::mem::take(&mut manifests.failures);
    let work = async {
        match arguments.level {
            Some(demand) => level::check(arguments, demand, manifests).await,
            None => check(arguments, manifests).await,
        }
    };
    match block_on(logs::Format::default(), work) {
        Ok(outcome) if failures.is_empty() => Ok(outcome),
        outcome => {
            failures.extend(outcome.err().map(|error| told(&error)));
            bail!(failures.join("\n"))
        }
    }
}

fn nothing_to_check(arguments: &Arguments, manifests: &Manifests) -> String {
    let paths: Vec<String> = arguments.paths.iter().map(|path| path.display().to_string()).collect();
    let empty = match manifests.others {
        0 => format!("looking for pods in {}: there are no objects", paths.join(", ")),
        1 => format!("looking for pods in {}: there are none in 1 object", paths.join(", ")),
        others => {
            format!("looking for pods in {}: there are none in {others} objects", paths.join(", "))
        }
    };
    if manifests.failures.is_empty() { empty } else { manifests.failures.join("\n") }
}

async fn check(arguments: &Arguments, manifests: Manifests) -> Result<Outcome> {
    let Manifests { mut workloads, others, limits, .. } = manifests;
    let cluster = if arguments.paths.is_empty() || workloads.iter().any(Workload::has_references) {
        let client = cluster::connect_once(arguments.context.as_deref()).await?;
        workloads.extend(pods(arguments, &client, limits).await?);
        // As `pavise lint` judges them: it decides about words of an explanation, not about a verdict.
        let mut verdicts = Verdicts::new(platform::of_this_machine()?);
        let read = lookup::bundles(&client, &arguments.bundle_namespaces.names, &mut verdicts).await;
        let read = read.into_iter().map(|(namespace, read)| (namespace, read.map_err(|error| told(&error))));
        let bundles = Bundles { home: arguments.bundle_namespaces.home()?.clone(), read: read.collect() };
        warn_of_unread(&bundles);
        Some(Cluster { nodes: lookup::nodes(client, |_| true, usize::MAX).await?, bundles })
    } else {
        None
    };

    let with: Vec<&Workload> = workloads.iter().filter(|one| one.has_references()).collect();
    let without = workloads.len() - with.len();
    let checked = match &cluster {
        Some(cluster) => {
            with.into_iter().map(|one| (one, cluster.place(&one.pod, &one.constraints))).collect()
        }
        None => Vec::new(),
    };
    let answer = Answer { checked, without, others };
    let text = match arguments.output {
        Format::Human => shown::for_people(&answer),
        Format::Json => shown::as_json(&answer),
    };
    print(&text)?;
    let is_fine = answer.checked.iter().all(|(_, placement)| placement.is_fine());
    Ok(if is_fine { Outcome::Done } else { Outcome::Refused })
}

/// What is said of an error: with advice, if it is a request that failed.
fn told(error: &anyhow::Error) -> String {
    let advice = error.downcast_ref().map(|Failed { code, permission, .. }| match code {
        401 => "log in to the cluster".to_owned(),
        403 => format!("let this user {permission}"),
        0 => "is this the right cluster, and does it run? KUBECONFIG and --context choose another".to_owned(),
        _ => "try again".to_owned(),
    });
    advice.map_or_else(|| format!("{error:#}"), |advice| format!("{error:#}; {advice}"))
}

/// The pods of the cluster that are asked about: none if manifests are.
async fn pods(arguments: &Arguments, client: &Connection, limits: Limits) -> Result<Vec<Workload>> {
    if !arguments.paths.is_empty() {
        return Ok(Vec::new());
    }
    let pods = lookup::pods(client.clone(), arguments.namespace.as_ref(), limits).await?;
    Ok(pods.into_iter().map(Workload::found).collect())
}

fn print(text: &str) -> Result<()> {
    io::stdout().lock().write_all(text.as_bytes()).context("writing the answer")
}

/// Says which bundles could not be read.
fn warn_of_unread(bundles: &Bundles) {
    for (namespace, read) in &bundles.read {
        if let Err(error) = read {
            eprintln!("pavise: the answer is by labels alone for the bundles of {namespace}: {error}");
        }
    }
}
