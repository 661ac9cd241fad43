//! Profiles in `<kubelet root>/seccomp`, with the ledger.
//!
//! Invariant: an install is look, ledger, write; a removal is unlink, ledger. So whatever step a crash comes after,
//! all that is ours on disk is in the ledger, and the next start finishes the work. Each batch writes the ledger once,
//! and makes each directory durable once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;
use profiles::digest::Digest;
use profiles::plan::Install;
use profiles::reference::Reference;
use profiles::state::Found;
use tracing::warn;

use super::dir::{Directory, Object, Way};
use super::error::HostError;
use super::ledger::{Ledger, Record};
use super::lock::Lock;
use super::{Host, Installed, Outcomes};

/// The kubelet's directory for profiles, below its root.
const SECCOMP: &str = "seccomp";
const FOREIGN_FILE: &str = "a file with other content";
const NO_WAY: &str = "something on the way that is no directory";

/// The node that this process runs on.
#[derive(Debug)]
pub(crate) struct NodeHost {
    root: Directory,
    ledger: Ledger,
    _lock: Lock,
}

/// A profile whose path is free for it.
struct Pending {
    install: Install,
    /// The content there that is ours, or is what we would write.
    present: Option<Digest>,
}

type Outcome = (Reference, Result<Installed, HostError>);

impl NodeHost {
    /// Opens the kubelet's seccomp directory, which is made if it is absent, and the ledger.
    pub(crate) fn open(kubelet_root: &Path, state_dir: &Path, lock: Lock) -> Result<Self> {
        let parent = Directory::open(kubelet_root)
            .map_err(|error| error.advise(" (see --kubelet-root: it must be the kubelet's --root-dir)"))?;
        Ok(Self { root: parent.make(SECCOMP)?, ledger: Ledger::open(state_dir)?, _lock: lock })
    }

    fn look(&self, reference: &Reference) -> Result<Object, HostError> {
        match self.root.descend(&directory_of(reference))? {
            Way::Open(directory) => directory.look(reference.key().as_str()),
            Way::Absent => Ok(Object::Absent),
            Way::Blocked => Ok(Object::Other(NO_WAY)),
        }
    }

    /// Whether the path is free. If not, that is how the install ends.
    fn judge(&self, install: Install) -> Result<Pending, Outcome> {
        let digests = self.ledger.record().files.get(&install.reference);
        let present = match self.look(&install.reference) {
            Ok(Object::Absent) => None,
            Ok(Object::File(found)) if found == Some(install.document.digest()) => found,
            Ok(Object::File(found)) => match digests {
                Some(ours) => found.filter(|digest| ours.contains(digest)),
                None => return Err((install.reference, Ok(Installed::Foreign(FOREIGN_FILE)))),
            },
            Ok(Object::Other(what)) => return Err((install.reference, Ok(Installed::Foreign(what)))),
            Err(error) => return Err((install.reference, Err(error))),
        };
        Ok(Pending { install, present })
    }

    /// The directories on the way to `batch` that are not there.
    fn absent_directories(&self, batch: &[Pending]) -> BTreeSet<String> {
        let all: BTreeSet<String> =
            batch.iter().flat_map(|pending| pending.install.reference.directories()).collect();
        all.into_iter().filter(|directory| matches!(self.root.descend(directory), Ok(Way::Absent))).collect()
    }

    /// Records what is about to be ours.
    fn intend(&mut self, batch: &[Pending]) -> Result<(), HostError> {
        let directories = self.absent_directories(batch);
        self.ledger.commit(|record| {
            record.directories.extend(directories);
            for Pending { install, present } in batch {
                let digests = present.iter().copied().chain([install.document.digest()]).collect();
                record.files.insert(install.reference.clone(), digests);
            }
        })
    }

    /// Writes what is not there yet in one directory, and makes it durable.
    fn write(&self, directories: &[String], group: &[Pending]) -> Outcomes<Installed> {
        let each = |write: &dyn Fn(&Pending) -> Result<Installed, HostError>| {
            group.iter().map(|pending| (pending.install.reference.clone(), write(pending))).collect()
        };
        let directory = match self.make_all(directories) {
            Ok(directory) => directory,
            Err(error) => return each(&|_| Err(error.clone())),
        };
        let written = each(&|pending| write_one(&directory, pending));
        match directory.sync() {
            Ok(()) => written,
            Err(error) => each(&|_| Err(error.clone())),
        }
    }

    fn make_all(&self, directories: &[String]) -> Result<Directory, HostError> {
        let mut names = directories.iter().map(|path| path.rsplit('/').next().unwrap_or(path));
        let first = self.root.make(names.next().unwrap_or_default())?;
        names.try_fold(first, |directory, name| directory.make(name))
    }

    fn unlink(&self, reference: &Reference) -> Result<(), HostError> {
        let Way::Open(directory) = self.root.descend(&directory_of(reference))? else { return Ok(()) };
        match directory.look(reference.key().as_str())? {
            Object::File(_) => directory.remove_file(reference.key().as_str())?,
            Object::Absent | Object::Other(_) => {}
        }
        directory.sync()
    }

    /// Removes the directories on the way to `removed` that we made and nobody needs. Returns those that are gone.
    fn remove_directories(&self, removed: &[Reference]) -> Vec<String> {
        let all: BTreeSet<String> = removed.iter().flat_map(Reference::directories).collect();
        let made = all.into_iter().rev().filter(|path| self.ledger.record().directories.contains(path));
        made.filter(|path| match self.root.remove_directory(path) {
            Ok(is_gone) => is_gone,
            Err(error) => {
                warn!(error = %error.in_full(), "Empty directory left behind");
                false
            }
        })
        .collect()
    }

    /// Removes what a replacement left behind that did not come to its end.
    fn sweep(&self) {
        let directories: BTreeSet<String> = self.ledger.record().files.keys().map(directory_of).collect();
        for path in directories {
            if let Ok(Way::Open(directory)) = self.root.descend(&path)
                && let Err(error) = directory.sweep()
            {
                warn!(error = %error.in_full(), "Temporary file left behind");
            }
        }
    }

    fn found(&self, reference: &Reference, ours: &BTreeSet<Digest>) -> Found {
        match self.look(reference) {
            Ok(Object::Absent) => Found::Absent,
            Ok(Object::File(found)) => {
                found.filter(|digest| ours.contains(digest)).map_or(Found::Changed, Found::Ours)
            }
            Ok(Object::Other(_)) => Found::NotAFile,
            Err(error) => {
                warn!(%reference, error = %error.in_full(), "Profile can't be read; it is written anew");
                Found::Changed
            }
        }
    }
}

impl Host for NodeHost {
    fn scan(&mut self) -> BTreeMap<Reference, Found> {
        self.sweep();
        let files = self.ledger.record().files.iter();
        files.map(|(reference, ours)| (reference.clone(), self.found(reference, ours))).collect()
    }

    fn install(&mut self, batch: Vec<Install>) -> Outcomes<Installed> {
        let mut outcomes = Outcomes::new();
        let mut pending = Vec::new();
        for install in batch {
            match self.judge(install) {
                Ok(one) => pending.push(one),
                Err(outcome) => outcomes.push(outcome),
            }
        }
        if let Err(error) = self.intend(&pending) {
            outcomes.extend(pending.into_iter().map(|one| (one.install.reference, Err(error.clone()))));
            return outcomes;
        }
        let mut groups: BTreeMap<Vec<String>, Vec<Pending>> = BTreeMap::new();
        for one in pending {
            groups.entry(one.install.reference.directories()).or_default().push(one);
        }
        outcomes.extend(groups.iter().flat_map(|(directories, group)| self.write(directories, group)));
        outcomes
    }

    fn remove(&mut self, batch: Vec<Reference>) -> Outcomes<()> {
        let mut outcomes: Outcomes<()> =
            batch.into_iter().map(|reference| (reference.clone(), self.unlink(&reference))).collect();
        let removed: Vec<Reference> =
            outcomes.iter().filter(|(_, one)| one.is_ok()).map(|(reference, _)| reference.clone()).collect();
        let directories = self.remove_directories(&removed);
        let committed = self.ledger.commit(|record| forget(record, &removed, &directories));
        if let Err(error) = committed {
            for (_, outcome) in &mut outcomes {
                *outcome = outcome.clone().and(Err(error.clone()));
            }
        }
        outcomes
    }
}

fn write_one(directory: &Directory, pending: &Pending) -> Result<Installed, HostError> {
    let document = &pending.install.document;
    if pending.present == Some(document.digest()) {
        return Ok(Installed::Adopted(document.digest()));
    }
    directory.replace(pending.install.reference.key().as_str(), document.content())?;
    Ok(Installed::Written(document.digest()))
}

fn forget(record: &mut Record, files: &[Reference], directories: &[String]) {
    for reference in files {
        record.files.remove(reference);
    }
    for directory in directories {
        record.directories.remove(directory);
    }
}

/// The directory that the file of `reference` is in, relative to the seccomp directory.
fn directory_of(reference: &Reference) -> String {
    reference.directories().pop().unwrap_or_default()
}

#[cfg(test)]
mod tests;
