//! What the loop does about AppArmor: texts go to the compiler, and what comes back into the node's store.
//!
//! Invariant: a text is with the compiler for as long as it takes and somebody wants it, and nothing waits
//! for it. What comes back is judged, and is durable, before the rules hear of it. What nobody wants any more
//! takes no turn of the compiler, no memory, and no room on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use profiles::apparmor::beside;
use profiles::apparmor::kernel::Load;
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::text::scan;
use profiles::digest::Digest;
use profiles::plan::Compile;
use profiles::sight::PolicySight;
use profiles::state::{Compiled, Event};
use tracing::warn;

use super::journal::Journal;
use crate::compiler::Answer;
use crate::compiler::queue::Queue;
use crate::compiler::verdict::{Verdict, verdict};
use crate::host::Care;
use crate::host::apparmor::{Loaded, PolicyHost, Unloaded};
use crate::host::error::HostError;

/// Has the compiler compile a text for a kernel with certain features. Fails if there is no answer.
pub(crate) type Ask = Box<dyn Fn(Arc<str>) -> LocalBoxFuture<'static, Result<Answer>>>;

/// How loading a profile ended, and what that is for the rules.
pub(super) type LoadEnded = (ProfileName, Result<Loaded, HostError>, Event);

/// The AppArmor policy of the node, and the way to the compiler.
pub(crate) struct Policies {
    host: Box<dyn PolicyHost>,
    compiling: Queue<Text, (Text, Result<Answer>)>,
}

/// A text that is to be compiled.
struct Text {
    text: Arc<str>,
    names: BTreeSet<ProfileName>,
}

/// A text that is back from the compiler.
pub(super) struct Answered {
    digest: Digest,
    text: Text,
    answer: Result<Answer>,
}

impl Policies {
    /// Nothing is asked of either yet. The compiler works on `at_once` texts at a time.
    pub(crate) fn new(host: Box<dyn PolicyHost>, ask: Ask, at_once: usize) -> Self {
        let send = move |text: Text| {
            let answer = ask(text.text.clone());
            async move { (text, answer.await) }.boxed_local()
        };
        Self { host, compiling: Queue::new(at_once, send) }
    }

    /// What the ledger and the kernel have.
    pub(super) fn scan(&mut self, care: Care) -> Result<Event> {
        Ok(Event::PolicyScanned(self.host.scan(care)?))
    }

    /// What the kernel has under these names. Nothing is said of it if that can't be looked at.
    pub(super) fn look(&self, names: &BTreeSet<ProfileName>) -> BTreeMap<ProfileName, PolicySight> {
        if names.is_empty() {
            return BTreeMap::new();
        }
        self.host.look(names).unwrap_or_else(|error| {
            warn!(
                error = error.in_full(),
                "AppArmor profiles that pods refer to can't be read from the kernel"
            );
            BTreeMap::new()
        })
    }

    /// Has a text compiled, unless that was done before, for this kernel: then that is what came of it. Or
    /// nobody has the text any more.
    pub(super) fn compile(&mut self, compile: Compile, journal: &mut Journal) -> Option<Event> {
        let Compile { text: digest, document, names, bundles } = compile;
        if self.compiling.has(digest) {
            // It was gone and is back before it was given up.
            return None;
        }
        if let Some(policy) = self.host.compiled(digest) {
            let outcome = Compiled::Accepted(policy, [].into());
            return Some(Event::Compiled { text: digest, outcome });
        }
        let text = match document {
            Some(document) => Some((document.text(), names)),
            // Of the names, only those that the ledger has are known.
            None => self.host.text(digest).map(|text| (Arc::from(text.as_str()), scan(&text).names)),
        };
        let Some((text, names)) = text else {
            journal.not_compiled(
                digest,
                "no bundle has it any more, and it is not on this node's disk as it was",
            );
            return Some(Event::Compiled { text: digest, outcome: Compiled::Failed });
        };
        self.compiling.wait(digest, bundles, Text { text, names });
        None
    }

    /// Gives up all texts that are not `wanted`: those that are to be compiled, and those that are stored and
    /// not in the ledger.
    pub(super) fn forget(&mut self, wanted: impl Fn(Digest) -> bool) {
        self.compiling.retain(&wanted);
        self.host.forget(&wanted);
    }

    /// The next text that is back; none if none is out.
    pub(super) async fn next(&mut self) -> Option<Answered> {
        let (digest, (text, answer)) = self.compiling.next().await?;
        Some(Answered { digest, text, answer })
    }

    /// What came of a text that is back.
    pub(super) fn take(&mut self, answered: Answered, journal: &mut Journal) -> Event {
        let Answered { digest, text: Text { text, names }, answer } = answered;
        let outcome = match answer.map(|answer| verdict(&text, &names, answer)) {
            Ok(Verdict::Accepted { policy, blob, warnings }) => match self.host.keep(&text, &blob, &names) {
                Ok(()) => {
                    journal.compiled(digest);
                    // What the text says itself was said when it came.
                    let told = if warnings.is_empty() { Vec::new() } else { scan(&text).findings };
                    Compiled::Accepted(policy, beside(&told, &warnings).cloned().collect())
                }
                Err(error) => {
                    journal.not_compiled(digest, &error.in_full());
                    Compiled::Failed
                }
            },
            Ok(Verdict::Refused(findings)) => {
                journal.compiled(digest);
                Compiled::Refused(findings.into())
            }
            Err(error) => {
                journal.not_compiled(digest, &format!("{error:#}"));
                Compiled::Failed
            }
        };
        Event::Compiled { text: digest, outcome }
    }

    /// Loads texts into the kernel. How that ended for each profile, and that those texts have to be compiled
    /// again of which the host has lost what was compiled.
    pub(super) fn load(&mut self, batch: Vec<Load>) -> (Vec<LoadEnded>, Vec<Event>) {
        let text_of = batch
            .iter()
            .flat_map(|load| load.names.iter().map(|name| (name.clone(), load.text)))
            .collect::<BTreeMap<_, _>>();
        let outcomes = self.host.load(batch);
        let mut all = Vec::new();
        let mut failed = BTreeSet::new();
        for (name, outcome) in outcomes {
            if outcome.is_err() {
                failed.extend(text_of.get(&name));
            }
            let event = match (&outcome, text_of.get(&name)) {
                (Ok(Loaded::Ours(blob) | Loaded::Adopted(blob)), Some(text)) => {
                    Event::PolicyLoaded { name: name.clone(), text: *text, blob: *blob }
                }
                (Ok(Loaded::Foreign(_)), _) => Event::PolicyForeign(name.clone()),
                (Ok(Loaded::Withheld), _) => Event::PolicyWithheld(name.clone()),
                (Err(_), _) | (_, None) => {
                    Event::PolicyLoadFailed { name: name.clone(), is_owned: self.host.owns(&name) }
                }
            };
            all.push((name, outcome, event));
        }
        let lost = failed.into_iter().filter(|text| self.host.compiled(*text).is_none());
        let again = lost.map(|text| Event::Compiled { text, outcome: Compiled::Failed }).collect();
        (all, again)
    }

    /// Takes profiles out of the kernel.
    pub(super) fn unload(&mut self, batch: Vec<ProfileName>, journal: &mut Journal) -> Vec<Event> {
        let mut events = Vec::new();
        for (name, outcome) in self.host.unload(batch) {
            journal.unloaded(&name, &outcome);
            events.push(match outcome {
                Ok(Unloaded::Removed) => Event::PolicyRemoved(name),
                Ok(Unloaded::InUse(_)) => Event::PolicyInUse(name),
                Err(_) => Event::PolicyRemoveFailed(name),
            });
        }
        events
    }
}
