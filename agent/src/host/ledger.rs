//! What the agent put on this node, on the node's own disk: one ledger for files, one for AppArmor policy.
//!
//! Invariants: a path or name is in its ledger before the agent touches it, so after a crash nothing of ours
//! is taken for somebody else's. A ledger that can't be read is an error, never an empty one: forgetting what
//! is ours would leave it behind for good.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use profiles::digest::Digest;
use profiles::reference::Reference;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use super::dir::Directory;
use super::error::HostError;

/// What becomes of an agent whose ledger is lost: nobody would know any more what it puts on the node.
const LOST: &str = " (it was deleted or moved while the agent ran, which ends for that: the next one adopts what \
                    equals a profile)";

/// A ledger that can't be used.
#[derive(Debug, Error)]
pub(crate) enum LedgerError {
    /// The disk failed.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It is not what this agent writes.
    #[error("reading {}, which is damaged: restore it, or move it away to have the agent start over \
             (it then adopts what equals a profile, and leaves all else alone)", path.display())]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It was written by a newer agent.
    #[error("reading {}: it has version {found}, this agent knows {known}: run the newer agent again", path.display())]
    Version {
        /// The ledger.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that this agent reads.
        known: u32,
    },
    /// It is about another directory than this agent's.
    #[error(
        "reading {}: it is about {found}, but the seccomp directory of this agent is {expected} (each in its file \
         system): give each --kubelet-root a --state-dir of its own, or move the ledger away to have the agent start \
         over (it then adopts files that equal a profile, and leaves all others alone)", path.display()
    )]
    OtherRoot {
        /// The ledger.
        path: PathBuf,
        /// What it is about.
        found: String,
        /// What it should be about.
        expected: String,
    },
}

/// The open ledger.
#[derive(Debug)]
pub(crate) struct Ledger<R> {
    directory: Directory,
    record: R,
    /// Whether the file says what `record` does.
    is_written: bool,
    /// Whether a power failure would leave `record`, and not one before it.
    is_durable: bool,
}

/// What a ledger says: in JSON, with its `version`.
pub(crate) trait Record: Clone + PartialEq + DeserializeOwned + Serialize {
    /// The name of the file in the state directory.
    const NAME: &'static str;
    /// The version that is written, and the newest that is read.
    const VERSION: u32;
    /// The oldest version that is read.
    const OLDEST: u32 = Self::VERSION;
}

/// The ledger of files.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileRecord {
    #[serde(deserialize_with = "newest")]
    version: u32,
    /// The seccomp directory that the paths are in, by [`Directory::origin`]. At equal paths in another one
    /// may be what is somebody else's.
    pub(crate) root: String,
    /// Each path of ours, and the contents that are ours there: the one that is being written, and the one
    /// before it. A file with other bytes was changed by somebody.
    #[serde(deserialize_with = "with_times")]
    pub(crate) files: BTreeMap<Reference, Contents>,
    /// The directories that the agent made, relative to the kubelet's seccomp directory.
    pub(crate) directories: BTreeSet<String>,
}

/// The contents that are ours at a path, each with the time from which on it was to be there, or was put
/// there by whoever wrote what was adopted: milliseconds since 1970, by the node's clock. None if it was put
/// there by an agent that did not take note of it. Putting it back changes nothing of that.
pub(crate) type Contents = BTreeMap<Digest, Option<u64>>;

impl Record for FileRecord {
    const NAME: &'static str = "ledger.json";
    const VERSION: u32 = 2;
    /// Contents had no times.
    const OLDEST: u32 = 1;
}

/// What is read of any version is written as the newest.
fn newest<'de, D: Deserializer<'de>>(version: D) -> Result<u32, D::Error> {
    u32::deserialize(version).map(|_| FileRecord::VERSION)
}

/// Contents of any version.
fn with_times<'de, D: Deserializer<'de>>(files: D) -> Result<BTreeMap<Reference, Contents>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum AnyContents {
        WithTimes(Contents),
        Alone(BTreeSet<Digest>),
    }
    let files = BTreeMap::<Reference, AnyContents>::deserialize(files)?.into_iter();
    let with_times = |contents| match contents {
        AnyContents::WithTimes(contents) => contents,
        AnyContents::Alone(contents) => contents.into_iter().map(|content| (content, None)).collect(),
    };
    Ok(files.map(|(reference, contents)| (reference, with_times(contents))).collect())
}

/// What every version of the file says.
#[derive(Deserialize)]
struct Preamble {
    version: u32,
}

impl Ledger<FileRecord> {
    /// Reads the ledger in `state_dir`, which is about the seccomp directory `root`. Without one, nothing is
    /// ours.
    pub(crate) fn of_files(state_dir: &Path, root: String) -> Result<Self, LedgerError> {
        let (files, directories) = (BTreeMap::new(), BTreeSet::new());
        let expected = root.clone();
        let ledger =
            Self::open(state_dir, FileRecord { version: FileRecord::VERSION, root, files, directories })?;
        if ledger.record.root != expected {
            let (path, found) = (state_dir.join(FileRecord::NAME), ledger.record.root);
            return Err(LedgerError::OtherRoot { path, found, expected });
        }
        Ok(ledger)
    }
}

impl<R: Record> Ledger<R> {
    /// Reads the ledger in `state_dir`. Without one, it says what `empty` does.
    pub(crate) fn open(state_dir: &Path, empty: R) -> Result<Self, LedgerError> {
        let directory = Directory::open(state_dir)?;
        let record = match directory.read(R::NAME)? {
            None => empty,
            Some(text) => parse(&state_dir.join(R::NAME), &text)?,
        };
        Ok(Self { directory, record, is_written: true, is_durable: true })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Makes sure that it is where the next agent looks for it.
    pub(crate) fn expect_in_place(&self) -> Result<(), HostError> {
        if self.directory.is_in_place() {
            return Ok(());
        }
        Err(HostError::new("using", self.path(), Errno::ENOENT).advise(LOST))
    }

    /// What it says.
    pub(crate) fn record(&self) -> &R {
        &self.record
    }

    /// Changes it durably with one write, or not at all. No change, no write.
    pub(crate) fn commit(&mut self, change: impl FnOnce(&mut R)) -> Result<(), HostError> {
        let mut next = self.record.clone();
        change(&mut next);
        if next != self.record || !self.is_written {
            let text = serde_json::to_vec_pretty(&next)
                .map_err(|error| HostError::new("encoding", Path::new(R::NAME), error))?;
            self.directory.replace(R::NAME, &text)?;
            self.record = next;
            self.is_written = true;
            self.is_durable = false;
        }
        if !self.is_durable {
            self.directory.sync()?;
            self.is_durable = true;
        }
        Ok(())
    }

    /// Gives up what is not ours. That holds from now on, also if the file can't be written: then the next
    /// commit does it.
    pub(crate) fn disclaim(&mut self, change: impl FnOnce(&mut R)) -> Result<(), HostError> {
        let before = self.record.clone();
        change(&mut self.record);
        self.is_written &= self.record == before;
        self.commit(|_| {})
    }
}

fn parse<R: Record>(path: &Path, text: &[u8]) -> Result<R, LedgerError> {
    let damaged = |source| LedgerError::Damaged { path: path.to_owned(), source };
    let found = serde_json::from_slice::<Preamble>(text).map_err(damaged)?.version;
    if !(R::OLDEST..=R::VERSION).contains(&found) {
        return Err(LedgerError::Version { path: path.to_owned(), found, known: R::VERSION });
    }
    serde_json::from_slice(text).map_err(damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(state_dir: &Path) -> Result<Ledger<FileRecord>, LedgerError> {
        Ledger::of_files(state_dir, "/kubelet/seccomp".to_owned())
    }

    #[test]
    fn what_is_committed_is_read_again() {
        let temporary = tempfile::tempdir().unwrap();
        let mut ledger = open(temporary.path()).unwrap();
        let reference: Reference = "_team/web/a.json".parse().unwrap();
        ledger
            .commit(|record| {
                record.files.insert(reference.clone(), [(Digest::of(b"x"), Some(7))].into());
                record.directories.insert("_team".to_owned());
            })
            .unwrap();
        let again = open(temporary.path()).unwrap();
        assert_eq!(again.record(), ledger.record());
        assert!(again.record().files.contains_key(&reference));
    }

    #[test]
    fn no_change_is_no_write() {
        let temporary = tempfile::tempdir().unwrap();
        let mut ledger = open(temporary.path()).unwrap();
        ledger.commit(|_| {}).unwrap();
        assert!(!temporary.path().join(FileRecord::NAME).exists());
    }

    /// Claims that a ledger of this text is refused, in words that contain `expected`, and left as it is.
    fn check_refused(text: &str, expected: &str) {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join(FileRecord::NAME);
        fs::write(&path, text).unwrap();
        let error = format!("{:#}", anyhow::Error::from(open(temporary.path()).unwrap_err()));
        assert!(error.contains(expected) && error.contains("ledger.json"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_damaged_ledger_is_refused_and_kept() {
        check_refused("", "move it away");
        check_refused("{", "move it away");
        check_refused(r#"{"version":1}"#, "move it away");
        let rest = r#""root":"/kubelet/seccomp","directories":[]"#;
        check_refused(&format!(r#"{{"version":1,"files":{{"../x":[]}},{rest}}}"#), "move it away");
    }

    #[test]
    fn a_ledger_of_another_kubelet_root_is_refused_and_kept() {
        let text = r#"{"version":1,"root":"/other/seccomp","files":{},"directories":[]}"#;
        check_refused(
            text,
            "it is about /other/seccomp, but the seccomp directory of this agent is /kubelet/seccomp",
        );
        check_refused(text, "--state-dir of its own");
    }

    #[test]
    fn a_ledger_of_the_future_is_refused_and_kept() {
        check_refused(r#"{"version":3,"files":[]}"#, "newer agent");
    }

    #[test]
    fn a_ledger_without_times_is_read_and_left_until_something_changes() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join(FileRecord::NAME);
        let digest = Digest::of(b"x");
        let contents = format!(r#"{{"web/a.json":["{digest}"]}}"#);
        let text =
            format!(r#"{{"version":1,"root":"/kubelet/seccomp","files":{contents},"directories":["web"]}}"#);
        fs::write(&path, &text).unwrap();
        let mut ledger = open(temporary.path()).unwrap();
        assert_eq!(ledger.record().files[&"web/a.json".parse().unwrap()], [(digest, None)].into());
        ledger.commit(|_| {}).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        ledger.commit(|record| record.directories.clear()).unwrap();
        let written = fs::read_to_string(&path).unwrap();
        assert!(written.contains(r#""version": 2"#), "{written}");
        assert_eq!(open(temporary.path()).unwrap().record(), ledger.record());
    }
}
