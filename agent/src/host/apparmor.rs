//! AppArmor policy in the kernel, with its ledger and its store.
//!
//! Invariants: a load is look, store, ledger, write, verify; a removal is look, remove, verify, ledger. So
//! whatever step a crash comes after, all that is ours in the kernel is in the ledger, and all that the
//! ledger has is in the store. Each batch writes the ledger once. What is ours is told by the blob that the
//! kernel says it came from, never by its name; a kernel that does not tell is believed for what was loaded
//! in this boot. Nothing is removed while a process runs under it: it would be confined no more.
//!
//! Profiles in a kernel end with it. So what has the name of one of ours after a reboot, before we loaded it,
//! was loaded by somebody else, and is theirs unless it is equal.

mod kernel;
mod load;
mod processes;
pub(crate) mod securityfs;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use futures::stream::BoxStream;
use nix::errno::Errno;
use profiles::apparmor::kernel::{FoundPolicy, InKernel, Load};
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::{Contents, Mode, Policy};
use profiles::digest::Digest;
use profiles::sight::PolicySight;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::Care;
use super::error::HostError;
use super::fault::{Step, about_to};
use super::ledger::{Ledger, Record};
use kernel::{Fingerprint, Kernel, Present, Raw};
use processes::Processes;
use store::{Judge, Store};

const OTHER_RULES: &str = "a profile with other rules";
const OTHER_MODE: &str = "a profile with another mode";
const NO_CHILD: &str = "a profile without one of its children";
const OTHER_CHILD: &str = "a profile with a child that has other rules or another mode";
const NO_PROC: &str = " (the node's /proc must be mounted; see --proc)";
const STILL_THERE: &str = " (somebody loaded it again in the same moment)";

/// How one profile's step ended.
pub(crate) type PolicyOutcomes<T> = Vec<(ProfileName, Result<T, HostError>)>;

/// What the loop does to the node's AppArmor policy. The seam at which tests inject failures.
pub(crate) trait PolicyHost {
    /// Compares what the ledger has with what the kernel has. What is somebody else's since the last reboot
    /// is given up, and not among it. Where nothing is wrong, nothing is written.
    ///
    /// # Errors
    /// The kernel's policy, or the ledger, is out of reach.
    fn scan(&mut self, care: Care) -> Result<BTreeMap<ProfileName, FoundPolicy>, HostError>;

    /// An item for each time that the policy may have changed, and a scan is due.
    fn changes(&self) -> BoxStream<'static, ()>;

    /// What the kernel can enforce, in the form of `apparmor_parser`'s features files.
    fn features(&self) -> &str;

    /// What was compiled from a text for this kernel by this compiler, if it is stored.
    fn compiled(&self, text: Digest) -> Option<Policy>;

    /// A text that is stored.
    fn text(&self, text: Digest) -> Option<String>;

    /// Stores a text and its blob, which declare these profiles, durably.
    ///
    /// # Errors
    /// The disk fails, or the blob is not what the text declares.
    fn keep(&mut self, text: &str, blob: &[u8], names: &BTreeSet<ProfileName>) -> Result<(), HostError>;

    /// Clears the store of texts that the ledger does not have, but for those that are `wanted`.
    fn forget(&mut self, wanted: &dyn Fn(Digest) -> bool);

    /// Loads texts that are stored. A text is loaded as a whole or not at all.
    fn load(&mut self, batch: Vec<Load>) -> PolicyOutcomes<Loaded>;

    /// Whether the ledger has this profile.
    fn owns(&self, name: &ProfileName) -> bool;

    /// What the kernel has under these names, whoever loaded it.
    ///
    /// # Errors
    /// The kernel's policy is out of reach.
    fn look(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, PolicySight>, HostError>;

    /// Removes profiles with their children. What the ledger does not have is left, and so is what somebody
    /// replaced, which is then no longer ours.
    fn unload(&mut self, batch: Vec<ProfileName>) -> PolicyOutcomes<Unloaded>;
}

/// How loading a profile ended, if it did not fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Loaded {
    /// The kernel has the profile of this blob, which was loaded before or is now.
    Ours(Digest),
    /// The kernel had it already from somebody else, equal. It is ours now.
    Adopted(Digest),
    /// The kernel has something of that name that is not ours: this.
    Foreign(&'static str),
    /// The kernel has something by the name of another profile of its text that is not ours, so nothing of the text
    /// was loaded.
    Withheld,
}

/// How removing a profile ended, if it did not fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unloaded {
    /// The kernel has it no more, or it is somebody else's.
    Removed,
    /// It stays. Why.
    InUse(String),
}

/// The ledger of profiles.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct PolicyRecord {
    version: u32,
    profiles: BTreeMap<ProfileName, Owned>,
}

/// A profile that is ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Owned {
    /// What it is loaded from.
    text: Digest,
    /// The one that is being loaded, or was.
    blob: Fingerprint,
    /// The one before it, which the kernel may have still.
    before: Option<Fingerprint>,
    /// The boot in which it was last loaded, by `/proc/sys/kernel/random/boot_id`.
    boot: String,
}

impl Record for PolicyRecord {
    const NAME: &'static str = "apparmor.json";
    const VERSION: u32 = 1;
}

/// The AppArmor policy of the node that this process runs on.
#[derive(Debug)]
pub(crate) struct ApparmorHost<K> {
    kernel: K,
    processes: Processes,
    ledger: Ledger<PolicyRecord>,
    store: Store,
    features: String,
    identity: Digest,
    boot: String,
    /// What the last scan found, and at which revision of the policy.
    seen: Option<(u64, BTreeMap<ProfileName, FoundPolicy>)>,
}

impl<K: Kernel> ApparmorHost<K> {
    /// Opens the ledger and the store in `state_dir`. `compiler` tells the compiler from all others, and
    /// `proc` is the node's procfs.
    ///
    /// # Errors
    /// One of them, or the kernel, is out of reach or not usable.
    pub(crate) fn open(
        kernel: K,
        state_dir: &Path,
        proc: PathBuf,
        compiler: Digest,
        judge: Judge,
    ) -> Result<Self> {
        let empty = PolicyRecord { version: PolicyRecord::VERSION, profiles: BTreeMap::new() };
        let ledger = Ledger::open(state_dir, empty)?;
        let features = kernel.features()?;
        let boot = boot(&proc)?;
        Ok(Self {
            store: Store::open(state_dir, judge, &texts(ledger.record()))?,
            ledger,
            identity: Digest::of(format!("{compiler}\n{features}").as_bytes()),
            features,
            boot,
            processes: Processes::new(proc),
            kernel,
            seen: None,
        })
    }

    /// What the kernel has of a profile of ours.
    fn judge(&self, name: &ProfileName, owned: &Owned, present: Option<&Present>) -> InKernel {
        let Some(present) = present else { return InKernel::Absent };
        let Some(blob) = self.blob_of(owned, &present.raw) else { return InKernel::Changed(OTHER_RULES) };
        // The contents of the blob before are not stored any more. It is going to be replaced anyway.
        match self.store.contents(owned.text, blob.digest, name).and_then(|it| difference(it, present)) {
            Some(difference) => InKernel::Changed(difference),
            None => InKernel::Ours(blob.digest),
        }
    }

    /// The blob of ours that the kernel says it has.
    fn blob_of<'a>(&self, owned: &'a Owned, raw: &Raw) -> Option<&'a Fingerprint> {
        let mut ours = [Some(&owned.blob), owned.before.as_ref()].into_iter().flatten();
        match raw {
            // Between two it is taken for the older one, which leads to another load. From another boot it
            // can't be ours.
            Raw::Untold => ours.next_back().filter(|_| owned.boot == self.boot),
            raw => ours.find(|blob| blob.is(raw)),
        }
    }

    /// Gives up what somebody else loaded since the last reboot, and takes note of what is equal.
    fn settle_boot(&mut self, present: &BTreeMap<ProfileName, Present>) {
        let of_another_boot =
            self.ledger.record().profiles.iter().filter(|(_, owned)| owned.boot != self.boot);
        let (mut equal, mut foreign) = (Vec::new(), Vec::new());
        for (name, owned) in of_another_boot {
            match present.get(name).map(|present| self.blob_of(owned, &present.raw)) {
                Some(Some(_)) => equal.push(name.clone()),
                Some(None) => foreign.push(name.clone()),
                None => {}
            }
        }
        for name in &foreign {
            warn!(%name, "Profile given up: since the reboot the kernel has another one, loaded by somebody else");
        }
        let boot = self.boot.clone();
        self.disclaim(|profiles| {
            for name in equal {
                profiles.entry(name).and_modify(|owned| owned.boot.clone_from(&boot));
            }
            profiles.retain(|name, _| !foreign.contains(name));
        });
    }

    /// Changes the ledger by what was seen. That holds also if it can't be written now.
    fn disclaim(&mut self, change: impl FnOnce(&mut BTreeMap<ProfileName, Owned>)) {
        if let Err(error) = self.ledger.disclaim(|record| change(&mut record.profiles)) {
            warn!(error = %error.in_full(), "Ledger of AppArmor profiles can't be written; trying again later");
        }
    }

    fn found(&self, name: &ProfileName, owned: &Owned, present: Option<&Present>) -> FoundPolicy {
        let is_stored =
            |kept: &&store::Kept| kept.fingerprint == owned.blob && kept.identity == self.identity;
        FoundPolicy {
            text: owned.text,
            blob: owned.blob.digest,
            is_current: self.store.kept(owned.text).as_ref().is_some_and(is_stored),
            kernel: self.judge(name, owned, present),
        }
    }

    /// Removes a profile of ours that is not in use.
    fn remove(&self, name: &ProfileName) -> Result<Unloaded, HostError> {
        let path = Path::new("the kernel's policy");
        about_to(Step::Unload, path).map_err(|error| HostError::new("changing", path, error))?;
        let removed = self.kernel.remove(name.as_str());
        let is_gone = self.kernel.look(&[name.clone()].into())?.is_empty();
        match removed {
            // Whoever removed it.
            Ok(()) | Err(_) if is_gone => Ok(Unloaded::Removed),
            Ok(()) => {
                let error = HostError::new("removing profile", Path::new(name.as_str()), Errno::EEXIST);
                Err(error.advise(STILL_THERE))
            }
            Err(error) => Err(error),
        }
    }

    /// How the removal of a profile ends that is not to be removed from the kernel.
    fn spared(
        &self,
        name: &ProfileName,
        present: &BTreeMap<ProfileName, Present>,
        used: &BTreeMap<&str, String>,
    ) -> Option<Unloaded> {
        let Some(owned) = self.ledger.record().profiles.get(name) else { return Some(Unloaded::Removed) };
        let Some(present) = present.get(name) else { return Some(Unloaded::Removed) };
        if self.blob_of(owned, &present.raw).is_none() {
            warn!(%name, "Profile given up: somebody replaced it in the kernel, and it is no longer wanted");
            return Some(Unloaded::Removed);
        }
        used.get(name.as_str()).map(|why| Unloaded::InUse(why.clone()))
    }
}

impl<K: Kernel> PolicyHost for ApparmorHost<K> {
    fn scan(&mut self, care: Care) -> Result<BTreeMap<ProfileName, FoundPolicy>, HostError> {
        self.ledger.expect_in_place()?;
        // Before the look: what changes meanwhile is looked at next time.
        let revision = self.kernel.revision()?;
        if let Some((seen, found)) = &self.seen
            && care == Care::Glance
            && *seen == revision
        {
            return Ok(found.clone());
        }
        let names = self.ledger.record().profiles.keys().cloned().collect();
        let present = self.kernel.look(&names)?;
        self.settle_boot(&present);
        let profiles = self.ledger.record().profiles.iter();
        let found: BTreeMap<ProfileName, FoundPolicy> = profiles
            .map(|(name, owned)| (name.clone(), self.found(name, owned, present.get(name))))
            .collect();
        debug!(revision, profiles = found.len(), "AppArmor policy looked at");
        self.seen = Some((revision, found.clone()));
        Ok(found)
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        self.kernel.changes()
    }

    fn features(&self) -> &str {
        &self.features
    }

    fn compiled(&self, text: Digest) -> Option<Policy> {
        self.store.kept(text).filter(|kept| kept.identity == self.identity)?;
        self.store.read_again(text).map(|(kept, _)| kept.policy.clone())
    }

    fn text(&self, text: Digest) -> Option<String> {
        self.store.text(text)
    }

    fn keep(&mut self, text: &str, blob: &[u8], names: &BTreeSet<ProfileName>) -> Result<(), HostError> {
        self.seen = None;
        self.store.keep(text, blob, names, self.identity)
    }

    fn forget(&mut self, wanted: &dyn Fn(Digest) -> bool) {
        let unwanted: Vec<Digest> = self.store.texts().filter(|text| !wanted(*text)).collect();
        if unwanted.is_empty() {
            return;
        }
        let owned = texts(self.ledger.record());
        for text in unwanted.into_iter().filter(|text| !owned.contains(text)) {
            self.store.remove(text);
        }
    }

    fn load(&mut self, batch: Vec<Load>) -> PolicyOutcomes<Loaded> {
        self.seen = None;
        let names: BTreeSet<ProfileName> = batch.iter().flat_map(|load| load.names.iter().cloned()).collect();
        let present = match self.kernel.look(&names) {
            Ok(present) => present,
            Err(error) => return failed_all(&names, &error),
        };
        self.settle_boot(&present);
        let mut outcomes = PolicyOutcomes::new();
        let mut pending = Vec::new();
        for load in &batch {
            match self.prepare(load, &present) {
                Ok(one) => pending.push(one),
                Err(ended) => outcomes.extend(ended),
            }
        }
        if !pending.is_empty() {
            outcomes.extend(self.carry_out(&pending));
        }
        outcomes
    }

    fn owns(&self, name: &ProfileName) -> bool {
        self.ledger.record().profiles.contains_key(name)
    }

    fn look(&self, names: &BTreeSet<ProfileName>) -> Result<BTreeMap<ProfileName, PolicySight>, HostError> {
        let found = self.kernel.look(names)?;
        let sight = |name: &ProfileName| match found.get(name) {
            None => PolicySight::Absent,
            Some(present) => PolicySight::Present(present.mode),
        };
        Ok(names.iter().map(|name| (name.clone(), sight(name))).collect())
    }

    fn unload(&mut self, batch: Vec<ProfileName>) -> PolicyOutcomes<Unloaded> {
        self.seen = None;
        let names: BTreeSet<ProfileName> = batch.into_iter().collect();
        let present = match self.kernel.look(&names) {
            Ok(present) => present,
            Err(error) => return failed_all(&names, &error),
        };
        self.settle_boot(&present);
        let loaded: Vec<&str> =
            present.keys().filter(|name| self.owns(name)).map(ProfileName::as_str).collect();
        let used = self.processes.under(&loaded);
        let unload = |name: &ProfileName| {
            let spared = self.spared(name, &present, &used);
            (name.clone(), spared.map_or_else(|| self.remove(name), Ok))
        };
        let mut outcomes: PolicyOutcomes<Unloaded> = names.iter().map(unload).collect();
        let is_removed = |outcome: &Result<Unloaded, HostError>| matches!(outcome, Ok(Unloaded::Removed));
        let removed: BTreeSet<ProfileName> = outcomes
            .iter()
            .filter(|(_, outcome)| is_removed(outcome))
            .map(|(name, _)| name.clone())
            .collect();
        let committed =
            self.ledger.commit(|record| record.profiles.retain(|name, _| !removed.contains(name)));
        if let Err(error) = committed {
            for (_, outcome) in outcomes.iter_mut().filter(|(_, outcome)| is_removed(outcome)) {
                *outcome = Err(error.clone());
            }
        }
        outcomes
    }
}

/// What somebody changed of a profile, beyond its own rules.
fn difference(contents: &Contents, present: &Present) -> Option<&'static str> {
    if present.mode != Some(contents.mode) {
        return Some(OTHER_MODE);
    }
    let of_child = |(name, mode): (&String, &Mode)| match present.children.get(name) {
        None => Some(NO_CHILD),
        Some(child) => (child.mode != Some(*mode) || child.raw != present.raw).then_some(OTHER_CHILD),
    };
    contents.children.iter().find_map(of_child)
}

/// The texts that the ledger has.
fn texts(record: &PolicyRecord) -> BTreeSet<Digest> {
    record.profiles.values().map(|owned| owned.text).collect()
}

fn failed_all<T>(names: &BTreeSet<ProfileName>, error: &HostError) -> PolicyOutcomes<T> {
    names.iter().map(|name| (name.clone(), Err(error.clone()))).collect()
}

/// Which boot of the node this is.
fn boot(proc: &Path) -> Result<String, HostError> {
    let path = proc.join("sys/kernel/random/boot_id");
    let failed = |error| HostError::new("reading", &path, error).advise(NO_PROC);
    let boot = fs::read_to_string(&path).map_err(failed)?;
    Ok(boot.trim().to_owned())
}

#[cfg(test)]
mod tests;
