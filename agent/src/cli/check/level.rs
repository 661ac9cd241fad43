//! `pavise check --level`: which pods would be refused if a level were enforced.
//!
//! Invariant: what is not known refuses nobody: where levels ask for what bundles declare and that was not
//! read, there is no answer.

mod shown;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::ValueEnum;
use profiles::catalog::object::{Defaults, NAME};
use profiles::level::Level;
use profiles::level::judge::Subject;
use profiles::level::scope::{Exemption, Judgement, Mode, NoLevel, SYSTEM};

use super::manifests::Manifests;
use super::{Arguments, Format, Workload};
use crate::cli::Outcome;
use crate::cluster;
use crate::cluster::lookup::{self, DeclaredProfiles};

/// Which level is demanded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Demand {
    /// Each Localhost reference is declared by a bundle, or by the administrator.
    Known,
    /// Each container is confined: it has a seccomp profile, the runtime's own or one of the node, its AppArmor
    /// profile is not Unconfined, and it is not privileged.
    Confined,
    /// Both, and each container's seccomp profile is Localhost.
    Localhost,
    /// In each namespace the level that is enforced there now, by its label or the default.
    Enforced,
}

impl Demand {
    /// The one level that is demanded everywhere.
    fn level(self) -> Option<Level> {
        match self {
            Self::Known => Some(Level::Known),
            Self::Confined => Some(Level::Confined),
            Self::Localhost => Some(Level::Localhost),
            Self::Enforced => None,
        }
    }
}

/// Which level each namespace demands.
struct Levels {
    everywhere: Option<Level>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    defaults: Defaults,
}

impl Levels {
    /// The level of `namespace`. One that does not exist has no labels.
    fn of(&self, namespace: &str) -> Result<Level, NoLevel> {
        let none = BTreeMap::new();
        let labels = self.labels.get(namespace).unwrap_or(&none);
        self.everywhere.map_or_else(|| Mode::Enforce.level(labels, &self.defaults), Ok)
    }
}

/// What is below its level, and how many pods of one owner are for the same reason.
#[derive(Debug)]
struct Entry {
    place: Option<String>,
    kind: String,
    namespace: Option<String>,
    name: String,
    /// How many pods it stands for; none if it is what makes pods.
    pods: Option<usize>,
    level: Option<Level>,
    /// What the API server says.
    message: String,
    /// All of it.
    problems: Vec<String>,
}

/// How many were judged, and how many of them are below their level.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: usize,
    below: usize,
}

/// What is said of all of them.
#[derive(Debug, Default)]
struct Answer {
    entries: Vec<Entry>,
    /// Where the pods of an owner are among the entries, by all that is told of them.
    places: BTreeMap<(Option<String>, String, String, Vec<String>), usize>,
    pods: Count,
    /// What makes pods.
    templates: Count,
    /// How many are not judged, and why.
    exempt: BTreeMap<Exemption, usize>,
    /// How many of those that were judged are in namespaces that demand nothing.
    unrestricted: usize,
    /// How many objects make no pods.
    others: usize,
}

/// Prints what would be refused.
pub(super) async fn check(arguments: &Arguments, demand: Demand, manifests: Manifests) -> Result<Outcome> {
    let Manifests { mut workloads, others, limits, .. } = manifests;
    let client = cluster::connect_once(arguments.context.as_deref()).await?;
    let namespace = client.default_namespace().to_owned();
    let declared = lookup::declared_profiles(client.clone()).await?;
    let labels = match demand {
        Demand::Enforced if !declared.exists => bail!(no_catalog()),
        Demand::Enforced => lookup::namespaces(client.clone(), arguments.namespace.as_ref()).await?,
        Demand::Known | Demand::Confined | Demand::Localhost => BTreeMap::new(),
    };
    workloads.extend(super::pods(arguments, &client, limits).await?);

    let levels = Levels { everywhere: demand.level(), labels, defaults: declared.object.spec.defaults };
    let mut answer = Answer { others, ..Answer::default() };
    for workload in workloads {
        let namespace = workload.namespace.as_deref().unwrap_or(&namespace);
        let level = levels.of(namespace);
        let judgement = Judgement::of(&workload.pod, namespace, level, &declared.object);
        refuse_to_guess(&judgement, &declared)?;
        answer.add(workload, judgement);
    }
    warn(&declared);
    let text = match arguments.output {
        Format::Human => shown::for_people(&answer),
        Format::Json => shown::as_json(&answer),
    };
    super::print(&text)?;
    Ok(if answer.entries.is_empty() { Outcome::Done } else { Outcome::Refused })
}

/// Fails if a judgement takes what bundles declare, and that is not known.
fn refuse_to_guess(judgement: &Judgement, declared: &DeclaredProfiles) -> Result<()> {
    let level = match judgement {
        Judgement::Fine(level) => Some(*level),
        Judgement::Below(violation) => Some(violation.level),
        Judgement::Exempt(_) | Judgement::NoLevel(_) => None,
    };
    if declared.is_written || !level.is_some_and(Level::asks_what_is_known) {
        return Ok(());
    }
    if declared.exists {
        bail!(
            "reading what bundles declare: `pavise catalog` has not written it into the ProfileCatalog {NAME} yet; does \
             it run? --level confined needs no answer to that"
        )
    }
    bail!(no_catalog())
}

fn no_catalog() -> String {
    format!(
        "reading what bundles declare: there is no ProfileCatalog {NAME}; `pavise catalog` of this version makes it, \
         and manifests/base has its definition; --level confined needs none"
    )
}

/// Says what the answer does not take into account.
fn warn(declared: &DeclaredProfiles) {
    let spec = &declared.object.spec;
    if !declared.exists {
        eprintln!("pavise: there is no ProfileCatalog {NAME}: nothing is exempt but the namespace {SYSTEM}");
    }
    let users = spec.exemptions.usernames.len();
    if users > 0 {
        let users = super::shown::counted(users, "user name");
        eprintln!("pavise: the exemptions of {users} are not applied: who will make a pod is not known here");
    }
    let omitted = declared.object.status.totals.omitted;
    if omitted > 0 {
        eprintln!(
            "pavise: the ProfileCatalog {NAME} has no room for {omitted} references: they count as unknown"
        );
    }
}

impl Answer {
    fn add(&mut self, workload: Workload, judgement: Judgement) {
        let subject = if workload.kind == "Pod" { Subject::Pod } else { Subject::Template };
        let message = judgement.message(subject);
        let (level, problems) = match judgement {
            Judgement::Exempt(exemption) => {
                *self.exempt.entry(exemption).or_default() += 1;
                return;
            }
            Judgement::Fine(level) => {
                self.unrestricted += usize::from(level == Level::Unrestricted);
                (Some(level), Vec::new())
            }
            Judgement::Below(violation) => (Some(violation.level), violation.problems),
            Judgement::NoLevel(no_level) => (None, vec![no_level.to_string()]),
        };
        let count = if subject == Subject::Pod { &mut self.pods } else { &mut self.templates };
        count.all += 1;
        if let Some(message) = message {
            count.below += 1;
            self.add_entry(workload, subject, level, message, problems);
        }
    }

    fn add_entry(
        &mut self,
        workload: Workload,
        subject: Subject,
        level: Option<Level>,
        message: String,
        problems: Vec<String>,
    ) {
        let Workload { place, mut kind, namespace, mut name, owner, .. } = workload;
        if let Some(owner) = owner {
            (kind, name) = (owner.kind, owner.name);
            let key = (namespace.clone(), kind.clone(), name.clone(), problems.clone());
            let index = *self.places.entry(key).or_insert(self.entries.len());
            if let Some(pods) = self.entries.get_mut(index).and_then(|entry| entry.pods.as_mut()) {
                *pods += 1;
                return;
            }
        }
        let pods = (subject == Subject::Pod).then_some(1);
        self.entries.push(Entry { place, kind, namespace, name, pods, level, message, problems });
    }
}
