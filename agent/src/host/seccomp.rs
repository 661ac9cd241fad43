//! Profiles in `<kubelet root>/seccomp`, with the ledger.
//!
//! Invariant: an install is look, ledger, write; a removal is unlink, ledger. So whatever step a crash comes after,
//! all that is ours on disk is in the ledger, and the next start finishes the work. Each batch writes the ledger once,
//! and makes each directory durable once. Only what failed costs another write of the ledger, which takes back the
//! claim to paths that hold nothing of ours.

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
const NEWCOMER: &str = "something that came just now";
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
    /// Whether the ledger does not have the path yet. Then nothing but an equal file was there, and nothing that
    /// came later is replaced.
    is_new: bool,
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
        let ours = self.ledger.record().files.get(&install.reference);
        let present = match (self.look(&install.reference), ours) {
            (Ok(Object::File(found)), _) if found == Some(install.document.digest()) => found,
            (Ok(Object::File(found)), Some(ours)) => found.filter(|digest| ours.contains(digest)),
            (Ok(Object::File(_)), None) => {
                return Err((install.reference, Ok(Installed::Foreign(FOREIGN_FILE))));
            }
            (Ok(Object::Other(what)), _) => return Err((install.reference, Ok(Installed::Foreign(what)))),
            // What is ours and can't be read was changed by somebody. If it is the way there that is blocked, then
            // writing fails for the same reason.
            (Ok(Object::Absent), _) | (Err(_), Some(_)) => None,
            (Err(error), None) => return Err((install.reference, Err(error))),
        };
        Ok(Pending { is_new: ours.is_none(), install, present })
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
            for Pending { install, present, .. } in batch {
                let digests = present.iter().copied().chain([install.document.digest()]).collect();
                record.files.insert(install.reference.clone(), digests);
            }
        })
    }

    /// Puts on disk what was judged.
    fn carry_out(&mut self, batch: Vec<Pending>) -> Outcomes<Installed> {
        let new: BTreeSet<Reference> =
            batch.iter().filter(|one| one.is_new).map(|one| one.install.reference.clone()).collect();
        let mut outcomes: Outcomes<Installed> = match self.intend(&batch) {
            Ok(()) => self.write_all(batch),
            Err(error) => batch.into_iter().map(|one| (one.install.reference, Err(error.clone()))).collect(),
        };
        self.take_back(&new, &mut outcomes);
        outcomes
    }

    fn write_all(&self, batch: Vec<Pending>) -> Outcomes<Installed> {
        let mut groups: BTreeMap<Vec<String>, Vec<Pending>> = BTreeMap::new();
        for one in batch {
            groups.entry(one.install.reference.directories()).or_default().push(one);
        }
        groups.iter().flat_map(|(directories, group)| self.write(directories, group)).collect()
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

    /// Takes back the intent for those of `new` that came to nothing. Otherwise what somebody else puts there would
    /// be taken for ours.
    fn take_back(&mut self, new: &BTreeSet<Reference>, outcomes: &mut Outcomes<Installed>) {
        let is_void = |reference, outcome: &Result<Installed, HostError>| match outcome {
            Ok(Installed::Written(_) | Installed::Adopted(_)) => false,
            Ok(Installed::Foreign(_)) => true,
            Err(_) => !self.may_hold_ours(reference),
        };
        let new = outcomes.iter().filter(|(reference, _)| new.contains(reference));
        let void: Vec<Reference> = new
            .filter(|(reference, outcome)| is_void(reference, outcome))
            .map(|(reference, _)| reference.clone())
            .collect();
        let directories = self.remove_directories(&void);
        if let Err(error) = self.ledger.commit(|record| forget(record, &void, &directories)) {
            for (_, outcome) in outcomes.iter_mut().filter(|(reference, _)| void.contains(reference)) {
                *outcome = outcome.clone().and(Err(error.clone()));
            }
        }
    }

    /// Whether there is a content of ours at the path, or that can't be told.
    fn may_hold_ours(&self, reference: &Reference) -> bool {
        let Some(ours) = self.ledger.record().files.get(reference) else { return false };
        match self.look(reference) {
            Ok(Object::File(found)) => found.is_some_and(|digest| ours.contains(&digest)),
            Ok(Object::Absent | Object::Other(_)) => false,
            Err(_) => true,
        }
    }

    fn make_all(&self, directories: &[String]) -> Result<Directory, HostError> {
        let mut names = directories.iter().map(|path| path.rsplit('/').next().unwrap_or(path));
        let first = self.root.make(names.next().unwrap_or_default())?;
        names.try_fold(first, |directory, name| directory.make(name))
    }

    fn unlink(&self, reference: &Reference) -> Result<(), HostError> {
        if !self.owns(reference) {
            return Ok(());
        }
        let Way::Open(directory) = self.root.descend(&directory_of(reference))? else { return Ok(()) };
        match directory.look(reference.key().as_str()) {
            Ok(Object::Absent | Object::Other(_)) => {}
            Ok(Object::File(_)) | Err(_) => directory.remove_file(reference.key().as_str())?,
        }
        directory.sync()
    }

    /// Removes the directories on the way to `removed` that we made and nobody needs. Returns those that are gone.
    fn remove_directories(&self, removed: &[Reference]) -> Vec<String> {
        self.sweep(removed.iter().map(directory_of).collect());
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

    /// Removes what a replacement in one of `directories` left behind that did not come to its end.
    fn sweep(&self, directories: BTreeSet<String>) {
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
        let Record { files, directories, .. } = self.ledger.record();
        self.sweep(files.keys().map(directory_of).chain(directories.iter().cloned()).collect());
        files.iter().map(|(reference, ours)| (reference.clone(), self.found(reference, ours))).collect()
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
        outcomes.extend(self.carry_out(pending));
        outcomes
    }

    fn owns(&self, reference: &Reference) -> bool {
        self.ledger.record().files.contains_key(reference)
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
    let name = pending.install.reference.key().as_str();
    if !pending.is_new {
        directory.replace(name, document.content())?;
    } else if !directory.create(name, document.content())? {
        return Ok(Installed::Foreign(NEWCOMER));
    }
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
