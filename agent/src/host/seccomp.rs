//! Profiles in `<kubelet root>/seccomp`, with the ledger.
//!
//! Invariant: an install is look, ledger, write; a removal is unlink, ledger. So whatever step a crash comes
//! after, all that is ours on disk is in the ledger, and the next start finishes the work. Each batch writes
//! the ledger once, and makes contents, and then each directory, durable once. Only what failed costs another
//! write of the ledger, which takes back the claim to paths that hold nothing of ours.
//!
//! A scan first watches, then looks, so that no change comes between the two. A thousand profiles cost it a
//! system call each if they are as they were ([`Care::Glance`]); reading and digesting them takes some ten
//! milliseconds.

mod since;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use futures::Stream;
use nix::errno::Errno;
use profiles::bundle::Document;
use profiles::digest::Digest;
use profiles::plan::Install;
use profiles::pod::ContainerId;
use profiles::reference::Reference;
use profiles::sight::{Confinement, FileSight, Inspect, SeccompPath};
use profiles::state::Found;
use tracing::{debug, warn};

use super::containers::Containers;
use super::dir::{Directory, Draft, Object, Stamp, Way};
use super::error::HostError;
use super::ledger::{Contents, FileRecord, Ledger};
use super::lock::Lock;
use super::sight::{MOST_WATCHED, Places};
use super::watch::Watch;
use super::{Care, Host, Installed, Outcomes, platform};

/// Where procfs is mounted outside of containers.
const PROC: &str = "/proc";
/// The kubelet's directory for profiles, below its root.
const SECCOMP: &str = "seccomp";
const OTHER_CONTENT: &str = "other content";
const OTHER_MODE: &str = "another mode or owner";
const UNREADABLE: &str = "a file that can't be read";
const DIRECTORY: &str = "a directory";
const FULL_DIRECTORY: &str = "a directory that is not empty";
/// What to do about a seccomp directory that is not there and can't be made.
const NO_ROOT: &str = " (see --kubelet-root: it must be the kubelet's --root-dir; in a container, its directory \
                       seccomp must be mounted from the node, as the volume `seccomp` of the DaemonSet is)";
/// What becomes of an agent that can't reach the seccomp directory any more.
const LOST: &str = " (it was deleted or moved while the agent ran, which ends for that: its next container gets the \
                    node's directory of now; if not, delete the pod, and the kubelet makes the directory)";
const FOREIGN_FILE: &str = "a file with other content";
const NEWCOMER: &str = "something that came just now";
const NO_WAY: &str = "something on the way that is no directory";
/// From so many files on, all of the file system is made durable at once, and not each file by itself.
const MANY: usize = 64;
/// So many files are open at once: containers are often allowed 1,024, directories and all else included.
const AT_ONCE: usize = 256;

/// The node that this process runs on.
#[derive(Debug)]
pub(crate) struct NodeHost {
    kubelet_root: PathBuf,
    root: Directory,
    ledger: Ledger<FileRecord>,
    watch: Watch,
    /// What was found at paths of the ledger, and in which state.
    seen: BTreeMap<Reference, (Stamp, Object)>,
    /// What pods refer to.
    places: Places,
    containers: Containers,
    _lock: Lock,
}

/// A profile whose path is free for it.
struct Pending {
    install: Install,
    /// The content there that is ours, or is what we would write.
    present: Option<Digest>,
    /// Whether the ledger does not have the path yet. Then nothing but an equal file was there, and nothing
    /// that came later is replaced.
    is_new: bool,
    /// Since when the content is there, if it is equal and somebody else's.
    written: Option<SystemTime>,
}

impl Pending {
    /// The directory that its file is in, relative to the seccomp directory.
    fn directory(&self) -> String {
        directory_of(&self.install.reference)
    }
}

/// A profile that is written under a temporary name; none if nothing needs to be.
type Drafted<'a> = Result<Option<Draft<'a>>, HostError>;

type Outcome = (Reference, Result<Installed, HostError>);

impl NodeHost {
    /// Opens the kubelet's seccomp directory, which is made if it is absent, and the ledger.
    ///
    /// # Errors
    /// One of them is out of reach or not usable, or the directory is known to be another one than the
    /// kubelet's.
    pub(crate) fn open(kubelet_root: &Path, state_dir: &Path, lock: Lock) -> Result<Self> {
        let root = open_root(kubelet_root)?;
        if !root.is_the_kubelets()? {
            debug!(path = %root.path().display(), "Whether the kubelet has its profiles there can't be told");
        }
        Ok(Self {
            kubelet_root: kubelet_root.to_owned(),
            ledger: Ledger::of_files(state_dir, root.origin())?,
            root,
            watch: Watch::default(),
            seen: BTreeMap::new(),
            places: Places::new(platform::of_this_machine()?),
            containers: Containers::new(PROC.into(), false),
            _lock: lock,
        })
    }

    /// The same with the node's procfs at `proc`. On a kernel before 5.8 that `has_apparmor`, `attr/current`
    /// is what AppArmor says.
    pub(crate) fn with_proc(self, proc: PathBuf, has_apparmor: bool) -> Self {
        Self { containers: Containers::new(proc, has_apparmor), ..self }
    }

    /// Whether `path` is the directory that profiles are put into, or below it. What can't be looked at is
    /// not.
    pub(crate) fn puts_profiles_into(&self, path: &Path) -> bool {
        let (path, root) = (path.canonicalize(), self.root.path().canonicalize());
        path.is_ok_and(|path| root.is_ok_and(|root| path.starts_with(root)))
    }

    /// An item for each time that something may have changed, and a scan is due.
    pub(crate) fn changes(&self) -> impl Stream<Item = ()> + use<> {
        self.watch.changes()
    }

    fn look(&self, reference: &Reference) -> Result<Object, HostError> {
        match self.root.descend(&directory_of(reference))? {
            Way::Open(directory) => directory.look(reference.key().as_str()),
            Way::Absent => Ok(Object::Absent),
            Way::Blocked => Ok(Object::Other(NO_WAY)),
        }
    }

    /// Opens the seccomp directory anew, if it was deleted or moved. In a container that leads to the same
    /// one: it keeps the node's directory that it was started with, wherever that is.
    fn find_root(&mut self) -> Result<(), HostError> {
        let is_the_ledgers = |root: &Directory| root.origin() == self.ledger.record().root;
        if self.root.is_in_place() && is_the_ledgers(&self.root) {
            return Ok(());
        }
        let root = open_root(&self.kubelet_root).map_err(|error| error.advise(LOST))?;
        if root.is_same(&self.root) || !is_the_ledgers(&root) {
            return Err(HostError::new("using", root.path(), Errno::ENOENT).advise(LOST));
        }
        warn!(path = %root.path().display(), "The seccomp directory was deleted or moved: using the new one");
        self.root = root;
        Ok(())
    }

    /// Watches the directories that hold what is ours, those on the way to what pods refer to, and those that
    /// hold these.
    fn watch_all(&mut self) {
        let files = self.ledger.record().files.keys();
        let ours: BTreeSet<String> = files.flat_map(Reference::directories).collect();
        let is_there = |path: &str| matches!(self.root.descend(path), Ok(Way::Open(_)));
        let at = |path: &str| self.root.path().join(path);
        let mut all: BTreeSet<PathBuf> =
            ours.iter().filter(|path| is_there(path)).map(|path| at(path)).collect();
        let places = self.places.directories(is_there);
        all.extend(places.into_iter().filter(|path| !ours.contains(*path)).take(MOST_WATCHED).map(at));
        // The kernel tells that a directory is gone where it was, and only there while it is held open.
        all.extend([self.root.path(), &self.kubelet_root, self.ledger.path()].map(Path::to_owned));
        self.watch.on(all);
    }

    /// Has a scan follow where one is needed: to watch a directory that is not yet, to look closely at what
    /// was adopted, and to find out why writing failed.
    fn follow_up(&self, outcomes: &Outcomes<Installed>) {
        let is_watched =
            |reference: &Reference| self.watch.is_on(&self.root.path().join(directory_of(reference)));
        let is_needed = |(reference, outcome): &(Reference, Result<Installed, HostError>)| match outcome {
            Ok(Installed::Written(_)) => !is_watched(reference),
            Ok(Installed::Foreign(_)) => false,
            Ok(Installed::Adopted(_)) | Err(_) => true,
        };
        if outcomes.iter().any(is_needed) {
            self.watch.tell();
        }
    }

    /// What is at a path of the ledger in `directory`. What was `seen` there is told again if it is in the
    /// same state.
    fn glance(&mut self, directory: &Directory, reference: &Reference) -> Result<Object, HostError> {
        let stamp = directory.stamp(reference.key().as_str());
        let seen = self.seen.get(reference).filter(|(seen, _)| Some(*seen) == stamp);
        if let Some((_, object)) = seen {
            return Ok(*object);
        }
        let object = directory.look(reference.key().as_str())?;
        if let Some(stamp) = stamp.filter(|stamp| stamp.is_settled(SystemTime::now())) {
            self.seen.insert(reference.clone(), (stamp, object));
        }
        Ok(object)
    }

    /// What is in one directory, at these paths of the ledger.
    fn found_in(&mut self, directory: &str, ours: BTreeMap<Reference, Contents>) -> Vec<(Reference, Found)> {
        let way = self.root.descend(directory);
        let mut look = |reference: &Reference| match &way {
            Ok(Way::Open(directory)) => self.glance(directory, reference),
            Ok(Way::Absent) => Ok(Object::Absent),
            Ok(Way::Blocked) => Ok(Object::Other(NO_WAY)),
            Err(error) => Err(error.clone()),
        };
        let found = |(reference, ours)| {
            let found = found(&reference, look(&reference), &ours);
            (reference, found)
        };
        ours.into_iter().map(found).collect()
    }

    /// Whether the path is free. If not, that is how the install ends.
    fn judge(&self, install: Install) -> Result<Pending, Outcome> {
        let ours = self.ledger.record().files.get(&install.reference);
        let present = match (self.look(&install.reference), ours) {
            (Ok(Object::Other(NO_WAY)), _) => {
                return Err((install.reference, Ok(Installed::Foreign(NO_WAY))));
            }
            (Ok(Object::File { digest, is_as_made: true }), Some(ours)) => {
                let wanted = install.document.digest();
                digest.filter(|digest| *digest == wanted || ours.contains_key(digest))
            }
            // What is ours and is something else now, or can't be read, was changed by somebody. If it is the
            // way there that is blocked, then writing fails for the same reason.
            (Ok(Object::Absent), None) | (_, Some(_)) => None,
            (Ok(Object::File { digest, .. }), None) if digest == Some(install.document.digest()) => digest,
            (Ok(Object::File { .. }), None) => {
                return Err((install.reference, Ok(Installed::Foreign(FOREIGN_FILE))));
            }
            (Ok(Object::Directory), None) => {
                return Err((install.reference, Ok(Installed::Foreign(DIRECTORY))));
            }
            (Ok(Object::Other(what)), None) => return Err((install.reference, Ok(Installed::Foreign(what)))),
            (Err(error), None) => return Err((install.reference, Err(error))),
        };
        let is_new = ours.is_none();
        let written = present.filter(|_| is_new).and_then(|_| self.written(&install.reference));
        Ok(Pending { install, present, is_new, written })
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
        let now = SystemTime::now();
        self.ledger.commit(|record| {
            record.directories.extend(directories);
            for pending in batch {
                let ours = record.files.entry(pending.install.reference.clone()).or_default();
                *ours = pending.contents(ours, now);
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

    fn write_all(&self, mut batch: Vec<Pending>) -> Outcomes<Installed> {
        batch.sort_by_cached_key(Pending::directory);
        batch.chunks(AT_ONCE).flat_map(|some| self.write(some)).collect()
    }

    /// Writes what is not there yet, makes the contents durable, then gives them their names, then makes
    /// those durable.
    fn write(&self, batch: &[Pending]) -> Outcomes<Installed> {
        let groups = batch.chunk_by(|one, next| one.directory() == next.directory());
        let groups: Vec<_> = groups.map(|group| (self.make_ready(group), group)).collect();
        let drafts = groups.iter().flat_map(|(directory, group)| draft_all(directory, group));
        let mut drafts = drafts.collect();
        self.make_durable(&mut drafts);
        let mut drafts = drafts.into_iter();
        let place = |(directory, group)| place_all(directory, group, &mut drafts);
        groups.iter().map(|(directory, group)| (directory, *group)).flat_map(place).collect()
    }

    /// The directory of `group`, made if it is absent and clear of what a crash left.
    fn make_ready(&self, group: &[Pending]) -> Result<Directory, HostError> {
        let directories = group.first().map(|one| one.install.reference.directories()).unwrap_or_default();
        let directory = self.make_all(&directories)?;
        directory.sweep()?;
        Ok(directory)
    }

    /// Makes the content of the drafts durable, so that they can have their names.
    fn make_durable(&self, drafts: &mut Vec<Drafted<'_>>) {
        let count = drafts.iter().flatten().flatten().count();
        let is_all_synced = count >= MANY && self.root.has_synced_all();
        for drafted in drafts {
            let Ok(Some(draft)) = drafted else { continue };
            if !(is_all_synced && draft.is_beside(&self.root))
                && let Err(error) = draft.sync()
            {
                *drafted = Err(error);
            }
        }
    }

    /// Takes back the intent for those of `new` that came to nothing. Otherwise what somebody else puts there
    /// would be taken for ours.
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
        if let Err(error) = self.ledger.disclaim(|record| forget(record, &void, &directories)) {
            for (_, outcome) in outcomes.iter_mut().filter(|(reference, _)| void.contains(reference)) {
                *outcome = outcome.clone().and(Err(error.clone()));
            }
        }
    }

    /// Whether there is a content of ours at the path, or that can't be told.
    fn may_hold_ours(&self, reference: &Reference) -> bool {
        let Some(ours) = self.ledger.record().files.get(reference) else { return false };
        match self.look(reference) {
            Ok(Object::File { digest, .. }) => digest.is_some_and(|digest| ours.contains_key(&digest)),
            Ok(Object::Absent | Object::Directory | Object::Other(_)) => false,
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
            Ok(Object::Absent | Object::Directory | Object::Other(_)) => {}
            Ok(Object::File { .. }) | Err(_) => directory.remove_file(reference.key().as_str())?,
        }
        Ok(())
    }

    /// Makes durable that these are gone.
    fn sync_removed(&self, outcomes: &mut Outcomes<()>) {
        let removed = outcomes.iter().filter(|(_, outcome)| outcome.is_ok());
        let directories: BTreeSet<String> = removed.map(|(reference, _)| directory_of(reference)).collect();
        for path in directories {
            let synced = self.root.descend(&path).and_then(|way| match way {
                Way::Open(directory) => directory.sync(),
                Way::Absent | Way::Blocked => Ok(()),
            });
            let Err(error) = synced else { continue };
            for (_, outcome) in outcomes.iter_mut().filter(|(reference, _)| directory_of(reference) == path) {
                *outcome = outcome.clone().and(Err(error.clone()));
            }
        }
    }

    /// Removes the directories on the way to `removed` that we made and nobody needs. Returns those that are
    /// gone.
    fn remove_directories(&self, removed: &[Reference]) -> Vec<String> {
        self.sweep(removed.iter().map(directory_of).collect());
        let all: BTreeSet<String> = removed.iter().flat_map(Reference::directories).collect();
        let made = all.into_iter().rev().filter(|path| self.ledger.record().directories.contains(path));
        made.filter(|path| match self.root.remove_directory(path) {
            Ok(is_gone) => is_gone,
            Err(error) => {
                warn!(error = %error.in_full(), "Empty directory can't be removed");
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
                warn!(error = %error.in_full(), "Temporary file can't be removed");
            }
        }
    }
}

impl Host for NodeHost {
    fn scan(&mut self, care: Care) -> Result<BTreeMap<Reference, Found>, HostError> {
        self.find_root()?;
        self.ledger.expect_in_place()?;
        self.places.scan(care);
        self.watch_all();
        let FileRecord { files, directories, .. } = self.ledger.record().clone();
        self.sweep(files.keys().map(directory_of).chain(directories).collect());
        match care {
            Care::Glance => self.seen.retain(|reference, _| files.contains_key(reference)),
            Care::Read => self.seen.clear(),
        }
        let mut groups: BTreeMap<String, BTreeMap<Reference, Contents>> = BTreeMap::new();
        for (reference, ours) in files {
            groups.entry(directory_of(&reference)).or_default().insert(reference, ours);
        }
        Ok(groups.into_iter().flat_map(|(directory, ours)| self.found_in(&directory, ours)).collect())
    }

    fn is_watching(&self) -> bool {
        self.watch.is_complete()
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
        self.follow_up(&outcomes);
        outcomes
    }

    fn content(&self, reference: &Reference, digest: Digest) -> Option<Document> {
        let Ok(Way::Open(directory)) = self.root.descend(&directory_of(reference)) else { return None };
        let name = reference.key().as_str();
        // A look reads no more than a profile can hold.
        match directory.look(name) {
            Ok(Object::File { digest: Some(found), .. }) if found == digest => {
                Document::kept(directory.read(name).ok()??, digest)
            }
            _ => None,
        }
    }

    fn owns(&self, reference: &Reference) -> bool {
        self.ledger.record().files.contains_key(reference)
    }

    fn look(&mut self, places: &BTreeSet<SeccompPath>) -> BTreeMap<SeccompPath, FileSight> {
        if self.places.ask(places) {
            self.watch_all();
            // Not where none is new: a scan is followed by a look at all that pods refer to.
            if self.places.are_many() {
                self.watch.tell();
            }
        }
        places.iter().map(|place| (place.clone(), self.places.look(&self.root, place))).collect()
    }

    fn inspect(&mut self, containers: &BTreeSet<Inspect>) -> BTreeMap<ContainerId, Option<Confinement>> {
        self.ask(containers)
    }

    fn remove(&mut self, batch: Vec<Reference>) -> Outcomes<()> {
        let mut outcomes: Outcomes<()> =
            batch.into_iter().map(|reference| (reference.clone(), self.unlink(&reference))).collect();
        self.sync_removed(&mut outcomes);
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

/// Writes what is not there yet in one directory, under temporary names.
fn draft_all<'a>(directory: &'a Result<Directory, HostError>, group: &'a [Pending]) -> Vec<Drafted<'a>> {
    let draft = |(number, pending): (usize, &'a Pending)| {
        let directory = directory.as_ref().map_err(Clone::clone)?;
        let document = &pending.install.document;
        if pending.present == Some(document.digest()) {
            return Ok(None);
        }
        directory.draft(number, pending.install.reference.key().as_str(), document.content()).map(Some)
    };
    group.iter().enumerate().map(draft).collect()
}

/// Gives the files in one directory their names, and makes that durable.
fn place_all(
    directory: &Result<Directory, HostError>,
    group: &[Pending],
    drafts: &mut dyn Iterator<Item = Drafted<'_>>,
) -> Outcomes<Installed> {
    let place = |(pending, drafted): (&Pending, Drafted<'_>)| {
        (pending.install.reference.clone(), drafted.and_then(|draft| place(pending, draft)))
    };
    let mut outcomes: Outcomes<Installed> = group.iter().zip(drafts).map(place).collect();
    if let Ok(directory) = directory
        && let Err(error) = directory.sync()
    {
        for (_, outcome) in &mut outcomes {
            if let Ok(Installed::Written(_) | Installed::Adopted(_)) = outcome {
                *outcome = Err(error.clone());
            }
        }
    }
    outcomes
}

fn place(pending: &Pending, draft: Option<Draft<'_>>) -> Result<Installed, HostError> {
    let digest = pending.install.document.digest();
    let Some(draft) = draft else { return Ok(Installed::Adopted(digest)) };
    let (is_placed, what) =
        if pending.is_new { (draft.create()?, NEWCOMER) } else { (draft.replace_any()?, FULL_DIRECTORY) };
    Ok(if is_placed { Installed::Written(digest) } else { Installed::Foreign(what) })
}

fn open_root(kubelet_root: &Path) -> Result<Directory, HostError> {
    let parent = Directory::open(kubelet_root).map_err(|error| error.advise(NO_ROOT))?;
    parent.make(SECCOMP).map_err(|error| error.advise(NO_ROOT))
}

/// What a look at a path of the ledger means, where these digests are ours.
fn found(reference: &Reference, object: Result<Object, HostError>, ours: &Contents) -> Found {
    match object {
        Ok(Object::Absent) => Found::Absent,
        Ok(Object::File { digest, is_as_made }) => match digest.filter(|digest| ours.contains_key(digest)) {
            None => Found::Changed(OTHER_CONTENT),
            Some(_) if !is_as_made => Found::Changed(OTHER_MODE),
            Some(digest) => Found::Ours(digest),
        },
        Ok(Object::Directory) => Found::NotAFile(DIRECTORY),
        Ok(Object::Other(what)) => Found::NotAFile(what),
        Err(error) => {
            debug!(%reference, error = %error.in_full(), "Profile can't be read");
            Found::Changed(UNREADABLE)
        }
    }
}

fn forget(record: &mut FileRecord, files: &[Reference], directories: &[String]) {
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
