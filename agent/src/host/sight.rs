//! What is at the places that pods refer to, whoever put it there.
//!
//! The runtime opens `<kubelet root>/seccomp/<path>` and follows links wherever they lead on the node. The
//! agent's container has nothing of the node but that directory. So links that stay in it are followed, and
//! where one leads out of it, also by an absolute path, what is there can't be told: that is no reason to
//! call it missing.
//!
//! Invariants: nothing outside of the directory is opened, no open blocks, and nothing is changed. A file
//! that is as it was costs an open and no read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

use nix::errno::Errno;
use profiles::platform::Platform;
use profiles::sight::{FileSight, Judged, SeccompPath};
use tracing::debug;

use super::Care;
use super::dir::{Directory, Followed, LARGEST, Stamp};

/// How many directories are watched for places at most: pods decide how many there are. What is in others is
/// noticed by the look now and then.
pub(super) const MOST_WATCHED: usize = 512;

/// From so many places on, those that nobody asks for any more are not kept until the look now and then.
const MANY: usize = 4096;

const LEADS_OUT: &str = "a symbolic link leads out of the seccomp directory";
const TOO_LARGE: &str = "it is larger than any profile that fits into a bundle";
const NO_DIRECTORY: &str = "below something that is no directory";
const CIRCLE: &str = "a symbolic link that leads nowhere";
const DEVICE: &str = "a socket or device";

/// The places that were asked for.
#[derive(Debug)]
pub(super) struct Places {
    platform: Platform,
    all: BTreeMap<SeccompPath, Place>,
}

/// What was seen at one.
#[derive(Debug, Default)]
struct Place {
    /// The judged file, and in which state it was.
    seen: Option<(Stamp, Judged)>,
    /// Whether it was asked for since the last scan.
    is_asked: bool,
}

impl Places {
    /// None yet, on a node of `platform`.
    pub(super) fn new(platform: Platform) -> Self {
        Self { platform, all: BTreeMap::new() }
    }

    /// A scan begins: what was not asked for since the last one is forgotten.
    pub(super) fn scan(&mut self, care: Care) {
        self.all.retain(|_, place| std::mem::take(&mut place.is_asked));
        if care == Care::Read {
            self.all.values_mut().for_each(|place| place.seen = None);
        }
    }

    /// Takes note of what is asked for. Returns whether any of it is new.
    pub(super) fn ask(&mut self, places: &BTreeSet<SeccompPath>) -> bool {
        let before = self.all.len();
        for place in places {
            self.all.entry(place.clone()).or_default().is_asked = true;
        }
        self.all.len() > before
    }

    /// Whether there are so many that a scan is to come soon: it forgets what was not asked for since the one before.
    pub(super) fn are_many(&self) -> bool {
        self.all.len() > MANY
    }

    /// The directories on the way to them of which `is_there` says that they are there. Below one that is not,
    /// none is: so a place costs one question more than there are directories, however deep its author
    /// made it.
    pub(super) fn directories(&self, is_there: impl Fn(&str) -> bool) -> BTreeSet<&str> {
        let mut asked: BTreeMap<&str, bool> = BTreeMap::new();
        for path in self.all.keys().map(SeccompPath::as_str) {
            for (end, _) in path.match_indices('/') {
                let directory = &path[..end];
                if !*asked.entry(directory).or_insert_with(|| is_there(directory)) {
                    break;
                }
            }
        }
        asked.into_iter().filter(|(_, is_there)| *is_there).map(|(directory, _)| directory).collect()
    }

    /// Looks at `path`, below `root`.
    pub(super) fn look(&mut self, root: &Directory, path: &SeccompPath) -> FileSight {
        let sight = match root.follow(path.as_str()) {
            Ok(Followed::File(file, stamp, size)) => self.look_into(path, file, stamp, size),
            Ok(Followed::Other(what)) => FileSight::NotAFile(what),
            // Nothing can have a name that long, or with a zero byte in it.
            Err(Errno::ENOENT | Errno::ENAMETOOLONG | Errno::EINVAL) => FileSight::Absent,
            Err(Errno::ENOTDIR) => FileSight::NotAFile(NO_DIRECTORY),
            Err(Errno::ELOOP) => FileSight::NotAFile(CIRCLE),
            Err(Errno::ENXIO | Errno::ENODEV) => FileSight::NotAFile(DEVICE),
            // openat2(2): what RESOLVE_BENEATH does not allow.
            Err(Errno::EXDEV) => FileSight::Unreadable(LEADS_OUT.to_owned()),
            Err(error) => FileSight::Unreadable(error.desc().to_owned()),
        };
        if let FileSight::Unreadable(why) = &sight {
            debug!(%path, why, "What a pod refers to can't be looked at");
        }
        sight
    }

    fn look_into(&mut self, path: &SeccompPath, file: File, stamp: Stamp, size: u64) -> FileSight {
        let place = self.all.entry(path.clone()).or_default();
        if let Some((_, judged)) = place.seen.as_ref().filter(|(seen, _)| *seen == stamp) {
            return FileSight::File(judged.clone());
        }
        if size > LARGEST {
            return FileSight::Unreadable(TOO_LARGE.to_owned());
        }
        let mut content = Vec::new();
        // It may grow meanwhile.
        if let Err(error) = file.take(LARGEST).read_to_end(&mut content) {
            return FileSight::Unreadable(error.to_string());
        }
        let judged = Judged::of(&content, self.platform);
        place.seen = stamp.is_settled(SystemTime::now()).then(|| (stamp, judged.clone()));
        FileSight::File(judged)
    }
}
