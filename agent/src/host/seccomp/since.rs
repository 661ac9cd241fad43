//! Since when a content is at a path, and so which containers were started with another one.
//!
//! Invariant: no container is outdated for its file being written again as it was, nor where it is not known
//! since when its content is there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use profiles::pod::ContainerId;
use profiles::reference::Reference;
use profiles::sight::{Confinement, Inspect, SeccompPath};

use super::{NodeHost, Pending, directory_of};
use crate::host::Host;
use crate::host::containers::Said;
use crate::host::dir::{Object, Way};
use crate::host::ledger::Contents;

impl Pending {
    /// What is ours at its path from `now` on, if `ours` is before.
    pub(super) fn contents(&self, ours: &Contents, now: SystemTime) -> Contents {
        let wanted = self.install.document.digest();
        // What is put back, or written again after a failure, is no other content.
        let is_newest = |since: &Option<u64>| ours.values().all(|other| other <= since);
        let since = match ours.get(&wanted) {
            Some(since) if self.present == Some(wanted) || is_newest(since) => *since,
            _ => milliseconds(self.written.unwrap_or(now)),
        };
        let present = self.present.map(|present| (present, ours.get(&present).copied().flatten()));
        present.into_iter().chain([(wanted, since)]).collect()
    }
}

impl NodeHost {
    /// What the kernel says of containers, and whether their files have got another content since.
    pub(super) fn ask(
        &mut self,
        containers: &BTreeSet<Inspect>,
    ) -> BTreeMap<ContainerId, Option<Confinement>> {
        let mut said = self.containers.ask(&containers.iter().map(|container| &container.id).collect());
        let files: BTreeSet<&SeccompPath> = containers.iter().filter_map(|one| one.file.as_ref()).collect();
        let since: BTreeMap<&SeccompPath, Option<SystemTime>> =
            files.into_iter().map(|file| (file, self.since(file))).collect();
        let confinement = |Inspect { id, file }: &Inspect| {
            let since = file.as_ref().and_then(|file| *since.get(file)?);
            (id.clone(), said.remove(id).flatten().map(|said| confinement(said, since)))
        };
        containers.iter().map(confinement).collect()
    }

    /// When what is at the path was last written.
    pub(super) fn written(&self, reference: &Reference) -> Option<SystemTime> {
        let Ok(Way::Open(directory)) = self.root.descend(&directory_of(reference)) else { return None };
        directory.stamp(reference.key().as_str())?.modified()
    }

    /// Since when the content at `place` is there; none if that is not known, as of ours that somebody
    /// changed.
    fn since(&mut self, place: &SeccompPath) -> Option<SystemTime> {
        let (directory, name) = place.as_str().rsplit_once('/').unwrap_or((".", place.as_str()));
        let Ok(Way::Open(directory)) = self.root.descend(directory) else { return None };
        let reference = place.as_str().parse().ok().filter(|reference| self.owns(reference));
        let Some(reference) = reference else { return directory.stamp(name)?.modified() };
        let Ok(Object::File { digest, .. }) = self.glance(&directory, &reference) else { return None };
        let since = (*self.ledger.record().files.get(&reference)?.get(&digest?)?)?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(since))
    }
}

/// What `said` means for a container whose file has its content `since` then.
fn confinement(said: Said, since: Option<SystemTime>) -> Confinement {
    let is_newer = |since| said.started_by.is_some_and(|started_by| since > started_by);
    Confinement {
        is_outdated: since.is_some_and(is_newer),
        seccomp_mode: said.seccomp_mode,
        seccomp_filters: said.seccomp_filters,
        apparmor: said.apparmor,
    }
}

/// As the ledger has times; none of one before 1970.
fn milliseconds(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}
