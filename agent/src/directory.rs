//! Bundles in a directory, as events: for who has no API server.
//!
//! Files are where references say: `<path>/<bundle>/<key>`, and `<path>/_<namespace>/<bundle>/<key>` for
//! bundle namespaces but the first. Links are followed, also those of a mounted ConfigMap.
//!
//! Invariants: what can't be read is not gone, be it the directory, a bundle or a file. A namespace is never
//! [`Event::Listed`] with less than all of its bundles. What is as it was is told once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use profiles::bundle::{Bundle, BundleId};
use profiles::diagnostic::{Code, Diagnostic, Place};
use profiles::name::Namespace;
use profiles::platform::Platform;
use profiles::state::Event;
use profiles::verdicts::Verdicts;
use tracing::{info, warn};

use crate::host::error::HostError;
use crate::host::text::{self, NoText};
use crate::host::watch::Watch;
use crate::sync::rescan::settled;

#[cfg(test)]
mod tests;

/// Time between looks for what nobody tells of: what links lead to, and what other machines change.
const PERIOD: Duration = Duration::from_secs(10);
/// The same while the directory can't be read.
const LOST_PERIOD: Duration = Duration::from_secs(1);

const OF_ANOTHER_NAMESPACE: &str = "name the namespace with --bundle-namespace, or move it away";
const MISNAMED: &str = "give it a name made of a-z, 0-9, - and ., which a bundle can have, or move it away";
const NO_DIRECTORY: &str = "put profiles into a directory, whose name is the bundle's, or move it away";
const DANGLING: &str = "it is a link that leads nowhere";

/// A directory of bundles.
#[derive(Debug)]
pub(crate) struct BundleDirectory {
    path: PathBuf,
    /// The namespaces to read, each with its directory.
    namespaces: BTreeMap<Namespace, PathBuf>,
    watch: Watch,
    verdicts: Verdicts,
    /// What was told.
    told: BTreeMap<Namespace, Listing>,
    /// Why it can't be read, as it was logged.
    problem: Option<String>,
}

/// What is in the directory of a namespace.
#[derive(Clone, Debug, Default, PartialEq)]
struct Listing {
    bundles: Vec<Bundle>,
    /// What is no bundle: what to do about it, by its path.
    strays: BTreeMap<String, &'static str>,
}

impl BundleDirectory {
    /// The directory at `path`, with the bundles of `home` in it, and those of `others` a directory further
    /// down, judged for a node of `platform`.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn open(
        path: &Path,
        home: &Namespace,
        others: &BTreeSet<Namespace>,
        platform: Platform,
    ) -> Result<Self, HostError> {
        let mut namespaces: BTreeMap<Namespace, PathBuf> =
            others.iter().map(|other| (other.clone(), path.join(format!("_{other}")))).collect();
        namespaces.insert(home.clone(), path.to_owned());
        let (watch, verdicts, told) = (Watch::default(), Verdicts::new(platform), BTreeMap::new());
        let mut opened = Self { path: path.to_owned(), namespaces, watch, verdicts, told, problem: None };
        opened.read().map_err(|error| error.advise(" (see --source)"))?;
        Ok(opened)
    }

    /// Watches the bundles, for ever.
    pub(crate) fn watch(self) -> impl Stream<Item = Event> {
        let changes = settled(self.watch.changes()).boxed_local();
        let looks =
            stream::unfold((self, changes, true), |(mut directory, mut changes, is_first)| async move {
                if !is_first {
                    let period = if directory.problem.is_some() { LOST_PERIOD } else { PERIOD };
                    // The end of the period is as good a reason to look as a change.
                    drop(tokio::time::timeout(period, changes.next()).await);
                }
                let events = directory.look();
                Some((stream::iter(events), (directory, changes, false)))
            });
        looks.flatten()
    }

    /// Looks at all. Returns what is news.
    fn look(&mut self) -> Vec<Event> {
        self.watch.on(self.directories());
        let read = self.read();
        let problem = read.as_ref().err().map(HostError::in_full);
        match &problem {
            Some(error) if self.problem != problem => {
                let advice = "trying again; profiles stay as they are";
                warn!(error, advice, "Bundles can't be read");
            }
            None if self.problem.is_some() => info!(path = %self.path.display(), "Bundles can be read again"),
            Some(_) | None => {}
        }
        self.problem = problem;
        read.map(|listings| self.news(listings)).unwrap_or_default()
    }

    /// The events that tell of `listings` what was not told yet.
    fn news(&mut self, listings: BTreeMap<Namespace, Listing>) -> Vec<Event> {
        let mut events = Vec::new();
        for (namespace, listing) in listings {
            // What was told stays as it is here, so that each content is held once.
            if self.told.get(&namespace) != Some(&listing) {
                let Listing { bundles, strays } = listing.clone();
                events.push(Event::Strays { namespace: namespace.clone(), strays });
                events.push(Event::Listed { namespace: namespace.clone(), bundles });
                self.told.insert(namespace, listing);
            }
        }
        events
    }

    /// All directories that can be read, by paths without links, so that each is the same as long as it is
    /// watched. Of one that comes to be readable, the one above tells.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let namespaces = self.namespaces.values().cloned();
        let below = self.namespaces.values().filter_map(|directory| fs::read_dir(directory).ok());
        let bundles = below.flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let readable = namespaces.chain(bundles).filter(|path| fs::read_dir(path).is_ok());
        readable.filter_map(|path| fs::canonicalize(path).ok()).collect()
    }

    fn read(&mut self) -> Result<BTreeMap<Namespace, Listing>, HostError> {
        let namespaces = self.namespaces.clone();
        let read = |(namespace, directory): (&Namespace, &PathBuf)| match self.list(namespace, directory) {
            Ok(listing) => Ok((namespace.clone(), listing)),
            // Nobody has put bundles into this namespace yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.is_not_made(directory) => {
                Ok((namespace.clone(), Listing::default()))
            }
            Err(error) => Err(HostError::new("listing the bundles in", directory, error)),
        };
        let listings: BTreeMap<Namespace, Listing> = namespaces.iter().map(read).collect::<Result<_, _>>()?;
        let bundles = listings.values().flat_map(|listing| &listing.bundles);
        self.verdicts.retain(&bundles.map(|bundle| &bundle.id).collect());
        Ok(listings)
    }

    /// Whether `directory`, which is not there, is one that nobody has made yet. What a link leads to is only
    /// out of reach.
    fn is_not_made(&self, directory: &Path) -> bool {
        directory != self.path && !is_link(directory)
    }

    fn list(&mut self, namespace: &Namespace, directory: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if self.is_passed_over(&path) {
                continue;
            }
            match bundle_at(namespace, &path, &mut self.verdicts) {
                Ok(bundle) => listing.bundles.extend(bundle),
                Err(advice) => drop(listing.strays.insert(path.display().to_string(), advice)),
            }
        }
        listing.bundles.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(listing)
    }

    /// Whether nobody means this to be a bundle: it is hidden, as kubelet's own entries of a volume and those
    /// of git are, or the directory of another namespace.
    fn is_passed_over(&self, path: &Path) -> bool {
        name_of(path).starts_with('.') || self.namespaces.values().any(|directory| directory == path)
    }
}

/// The bundle at `path`; none if it is gone. If there is something else, that is what to do about it.
fn bundle_at(
    namespace: &Namespace,
    path: &Path,
    verdicts: &mut Verdicts,
) -> Result<Option<Bundle>, &'static str> {
    if fs::metadata(path).is_ok_and(|status| !status.is_dir()) {
        return Err(NO_DIRECTORY);
    }
    let name = name_of(path);
    let advice = if name.starts_with('_') { OF_ANOTHER_NAMESPACE } else { MISNAMED };
    let id = BundleId::new(namespace.as_str(), &name).map_err(|_| advice)?;
    match files_in(path) {
        Ok(files) => Ok(Some(Bundle::of_seccomp_files(id, files, verdicts))),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let message = format!("it can't be read: {error}");
            let help = "let the agent's user read it; until then, the profiles before stay";
            Ok(Some(Bundle::unreadable(id, unreadable(path, message, help))))
        }
        Err(_) if is_link(path) => {
            let help = "put right what it leads to, or remove it; until then, the profiles before stay";
            Ok(Some(Bundle::unreadable(id, unreadable(path, DANGLING.to_owned(), help))))
        }
        Err(_) => Ok(None),
    }
}

/// The text of each file in a bundle's directory, or why there is none.
fn files_in(directory: &Path) -> io::Result<BTreeMap<String, Result<String, Diagnostic>>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = name_of(&path);
        // The kubelet's own entries of a volume. No key begins so.
        if name.starts_with("..") {
            continue;
        }
        match text::read(&path) {
            Err(NoText::Absent) if !is_link(&path) => {}
            text => drop(files.insert(name, text.map_err(|why| no_text(&path, &why)))),
        }
    }
    Ok(files)
}

fn no_text(path: &Path, why: &NoText) -> Diagnostic {
    let (message, help) = match why {
        NoText::Absent => (DANGLING.to_owned(), "put right what it leads to, or remove it"),
        NoText::Unreadable(error) => (format!("it can't be read: {error}"), "let the agent's user read it"),
        NoText::NoFile => ("it is no regular file".to_owned(), "put a file there, or move it away"),
        NoText::Large => ("it is larger than 1 MiB, and so than a ConfigMap".to_owned(), "shorten it"),
        NoText::Binary(byte) => (format!("byte {byte} is not UTF-8"), "save it as UTF-8 text"),
    };
    unreadable(path, message, help)
}

fn unreadable(path: &Path, message: String, help: &'static str) -> Diagnostic {
    Diagnostic { code: Code::Unreadable, place: Place::at(path.display().to_string()), message, help }
}

fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|status| status.is_symlink())
}

/// The last part of `path`. What is no text in it makes it a name that is not valid.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
