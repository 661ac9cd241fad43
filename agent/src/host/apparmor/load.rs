//! Loading texts into the kernel.
//!
//! Invariants: a text with a profile that is somebody else's in the kernel is not loaded at all. What a batch
//! loads is in the ledger, with one write, before the first blob goes in; of what came to nothing, the ledger
//! has again what it had before. What the kernel has already is not loaded again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::errno::Errno;
use profiles::apparmor::kernel::{InKernel, Load};
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::Contents;
use profiles::digest::Digest;
use tracing::warn;

use super::kernel::{Child, Fingerprint, Kernel, Present, Raw};
use super::{ApparmorHost, Loaded, OTHER_RULES, Owned, PolicyOutcomes, difference, failed_all};
use crate::host::error::HostError;
use crate::host::fault::{Step, about_to};

pub(super) const UNTOLD: &str = "a profile of which the kernel does not tell what it holds";
const NOT_KEPT: &str = " (it is not stored as it was compiled: it has to be compiled again)";
const OTHER_NAMES: &str = " (its blob declares other profiles: it has to be compiled again)";
const MEANWHILE: &str = " (somebody changed it in the same moment: see which other software loads profiles)";

/// A text of which nothing is in the way.
pub(super) struct Pending {
    text: Digest,
    fingerprint: Fingerprint,
    profiles: BTreeMap<ProfileName, Ready>,
}

/// A profile of a [`Pending`] text.
struct Ready {
    contents: Contents,
    /// The blob of ours that the kernel has now.
    before: Option<Fingerprint>,
    /// Whether the kernel has the whole of it already.
    is_equal: bool,
    /// What the ledger has of it before the batch; none if it is new.
    owned: Option<Owned>,
}

impl<K: Kernel> ApparmorHost<K> {
    /// Whether nothing is in the way of a text. If something is, that is how it ends for each of its
    /// profiles.
    pub(super) fn prepare(
        &self,
        load: &Load,
        present: &BTreeMap<ProfileName, Present>,
    ) -> Result<Pending, PolicyOutcomes<Loaded>> {
        let all = |advice| failed_all(&load.names, &error_of(load.text, Errno::ENOENT).advise(advice));
        let kept = self.store.kept(load.text).filter(|kept| kept.identity == self.identity);
        let Some(kept) = kept else { return Err(all(NOT_KEPT)) };
        if !kept.policy.profiles.keys().eq(&load.names) {
            return Err(all(OTHER_NAMES));
        }
        let mut profiles = BTreeMap::new();
        let mut foreign = BTreeMap::new();
        for (name, contents) in &kept.policy.profiles {
            match self.ready(name, contents, &kept.fingerprint, present.get(name)) {
                Ok(ready) => drop(profiles.insert(name.clone(), ready)),
                Err(what) => drop(foreign.insert(name.clone(), what)),
            }
        }
        if foreign.is_empty() {
            return Ok(Pending { text: load.text, fingerprint: kept.fingerprint.clone(), profiles });
        }
        // The kernel takes a text as a whole.
        let others = profiles.into_keys().map(|name| (name, Ok(Loaded::Withheld)));
        let foreign = foreign.into_iter().map(|(name, what)| (name, Ok(Loaded::Foreign(what))));
        Err(foreign.chain(others).collect())
    }

    /// How a profile of the blob `wanted` stands. If its name is somebody else's: what they have there.
    fn ready(
        &self,
        name: &ProfileName,
        contents: &Contents,
        wanted: &Fingerprint,
        present: Option<&Present>,
    ) -> Result<Ready, &'static str> {
        let owned = self.ledger.record().profiles.get(name).cloned();
        let before = match (&owned, present) {
            (_, None) => None,
            (Some(owned), Some(present)) => self.blob_of(owned, &present.raw).cloned(),
            (None, Some(Present { raw: Raw::Untold, .. })) => return Err(UNTOLD),
            (None, Some(present)) if !wanted.is(&present.raw) => return Err(OTHER_RULES),
            (None, Some(present)) => match difference(contents, present) {
                Some(difference) => return Err(difference),
                None => Some(wanted.clone()),
            },
        };
        let is_wanted = |present| before.as_ref() == Some(wanted) && difference(contents, present).is_none();
        Ok(Ready { contents: contents.clone(), is_equal: present.is_some_and(is_wanted), before, owned })
    }

    /// Records what is about to be ours.
    fn intend(&mut self, batch: &[Pending]) -> Result<(), HostError> {
        let boot = &self.boot;
        self.ledger.commit(|record| {
            for Pending { text, fingerprint, profiles } in batch {
                for (name, Ready { before, .. }) in profiles {
                    let before = before.clone().filter(|before| before != fingerprint);
                    let owned = Owned { text: *text, blob: fingerprint.clone(), before, boot: boot.clone() };
                    record.profiles.insert(name.clone(), owned);
                }
            }
        })
    }

    /// Loads what was prepared and is not there yet. Returns what failed, by text.
    fn write_all(&mut self, batch: &[Pending]) -> BTreeMap<Digest, HostError> {
        let (kernel, store) = (&self.kernel, &mut self.store);
        let write = |pending: &Pending| {
            if pending.profiles.values().all(|ready| ready.is_equal) {
                return None;
            }
            let mut write = || {
                let path = Path::new("the kernel's policy");
                about_to(Step::Load, path).map_err(|error| HostError::new("changing", path, error))?;
                let (kept, blob) = store
                    .read_or_lose(pending.text)
                    .ok_or_else(|| error_of(pending.text, Errno::ENOENT).advise(NOT_KEPT))?;
                if kept.fingerprint != pending.fingerprint {
                    return Err(error_of(pending.text, Errno::ESTALE).advise(NOT_KEPT));
                }
                kernel.replace(&blob)
            };
            write().err().map(|error| (pending.text, error))
        };
        batch.iter().filter_map(write).collect()
    }

    /// Removes the children that the blob before had and the `loaded` one has not: the kernel keeps them, and a
    /// hat can be entered without a rule. Where a process is in one, it stays until its parent goes.
    fn remove_orphans(&self, loaded: &[&Pending], present: &BTreeMap<ProfileName, Present>) {
        let of_profile = |(name, ready): (&ProfileName, &Ready)| {
            let children = present.get(name).into_iter().flat_map(|present| &present.children);
            let before = ready.before.as_ref();
            let is_orphan = |(child, found): &(&String, &Child)| {
                !ready.contents.children.contains_key(*child)
                    && before.is_some_and(|before| before.is(&found.raw))
            };
            children.filter(is_orphan).map(|(child, _)| child.clone()).collect::<Vec<_>>()
        };
        let orphans: Vec<String> =
            loaded.iter().flat_map(|pending| &pending.profiles).flat_map(of_profile).collect();
        let orphans: Vec<&str> = orphans.iter().map(String::as_str).collect();
        let used = self.processes.under(&orphans);
        for orphan in orphans {
            if let Some(why) = used.get(orphan) {
                warn!(
                    profile = orphan,
                    why, "Child profile that its parent no longer has stays in the kernel"
                );
            } else if let Err(error) = self.kernel.remove(orphan) {
                warn!(profile = orphan, error = %error.in_full(), "Child profile can't be removed from the kernel");
            }
        }
    }

    /// What the kernel has after a batch of loads.
    fn verify(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, Present>, HostError> {
        let path = Path::new("the kernel's policy");
        about_to(Step::Verify, path).map_err(|error| HostError::new("looking at", path, error))?;
        self.kernel.look(names)
    }

    /// Loads what was prepared.
    pub(super) fn carry_out(&mut self, batch: &[Pending]) -> PolicyOutcomes<Loaded> {
        let names: BTreeSet<ProfileName> =
            batch.iter().flat_map(|pending| pending.profiles.keys().cloned()).collect();
        if let Err(error) = self.intend(batch) {
            return failed_all(&names, &error);
        }
        let failed = self.write_all(batch);
        let after = self.verify(&names);
        let mut outcomes = PolicyOutcomes::new();
        let mut undone = Vec::new();
        let mut certain = BTreeSet::new();
        for Pending { text, fingerprint, profiles } in batch {
            for (name, ready) in profiles {
                let outcome = match (failed.get(text), &after) {
                    (Some(error), _) | (None, Err(error)) => Err(error.clone()),
                    (None, Ok(after)) => {
                        let Some(owned) = self.ledger.record().profiles.get(name) else { continue };
                        self.verified(name, fingerprint, owned, ready, after.get(name))
                    }
                };
                let is_undone = match (&ready.owned, &after) {
                    (None, Err(_)) => false,
                    (None, Ok(after)) => outcome.is_err() && !self.may_be_ours(name, after.get(name)),
                    // The kernel did not take the blob, so the version before it is the one that counts.
                    (Some(_), _) => failed.contains_key(text),
                };
                if is_undone {
                    undone.push((name.clone(), ready.owned.clone()));
                }
                let is_untold = |present: &Present| present.raw == Raw::Untold;
                if outcome.is_ok() && after.as_ref().is_ok_and(|it| it.get(name).is_some_and(is_untold)) {
                    certain.insert(name.clone());
                }
                outcomes.push((name.clone(), outcome));
            }
        }
        if let Ok(after) = &after {
            // The children of a version that stays are no orphans.
            let loaded: Vec<&Pending> =
                batch.iter().filter(|pending| !failed.contains_key(&pending.text)).collect();
            self.remove_orphans(&loaded, after);
        }
        // Where the kernel does not tell blobs apart, the ledger says that it is not the one before.
        self.disclaim(|profiles| {
            for (name, owned) in undone {
                match owned {
                    Some(owned) => drop(profiles.insert(name, owned)),
                    None => drop(profiles.remove(&name)),
                }
            }
            for (_, owned) in profiles.iter_mut().filter(|(name, _)| certain.contains(*name)) {
                owned.before = None;
            }
        });
        outcomes
    }

    fn verified(
        &self,
        name: &ProfileName,
        fingerprint: &Fingerprint,
        owned: &Owned,
        ready: &Ready,
        present: Option<&Present>,
    ) -> Result<Loaded, HostError> {
        let digest = fingerprint.digest;
        // Untold is taken for the one before, as long as there is one.
        let is_told = present.is_some_and(|present| present.raw != Raw::Untold);
        let owned = Owned { before: owned.before.clone().filter(|_| is_told), ..owned.clone() };
        match self.judge(name, &owned, present) {
            InKernel::Ours(blob) if blob == digest && ready.owned.is_none() && ready.is_equal => {
                Ok(Loaded::Adopted(digest))
            }
            InKernel::Ours(blob) if blob == digest => Ok(Loaded::Ours(digest)),
            InKernel::Ours(_) | InKernel::Changed(_) | InKernel::Absent => {
                let path = Path::new(name.as_str());
                Err(HostError::new("verifying profile", path, Errno::ESTALE).advise(MEANWHILE))
            }
        }
    }

    /// Whether the kernel has a profile of ours of that name.
    fn may_be_ours(&self, name: &ProfileName, present: Option<&Present>) -> bool {
        let owned = self.ledger.record().profiles.get(name);
        present.is_some_and(|present| owned.is_some_and(|it| self.blob_of(it, &present.raw).is_some()))
    }
}

fn error_of(text: Digest, errno: Errno) -> HostError {
    HostError::new("loading text", Path::new(&text.to_string()), errno)
}
