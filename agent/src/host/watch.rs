//! Directories whose changes are told at once.
//!
//! Invariants: the types of notify stop here. A change is only told, never what it was: whoever is told
//! looks. What changes after [`Watch::on`] returned is told, also when inotify's queue overflows; so who
//! calls it and then looks misses nothing. Not told is a change through a memory map (inotify(7)): a look now
//! and then is for that.
//!
//! Each directory is watched by itself. Recursive watches are added by notify after a directory was made,
//! when files may already be in it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use futures::{Stream, stream};
use notify::event::{AccessKind, AccessMode};
use notify::{Config, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{info, warn};

const ADVICE: &str = "raise the node's fs.inotify.max_user_watches or fs.inotify.max_user_instances";

/// The watched directories.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
    /// Why not all is watched, as it was logged.
    problem: Option<String>,
}

impl Watch {
    /// An item for each time that something changed since the last one, for ever.
    pub(crate) fn changes(&self) -> impl Stream<Item = ()> + use<> {
        stream::unfold(self.changed.clone(), |changed| async {
            changed.notified().await;
            Some(((), changed))
        })
    }

    /// Says that something changed.
    pub(crate) fn tell(&self) {
        self.changed.notify_one();
    }

    /// Watches `directories` and no others. Those that were watched are so again: one of them may have been
    /// made anew.
    pub(crate) fn on(&mut self, directories: BTreeSet<PathBuf>) {
        let problem = self.try_on(&directories).err().map(|error| error.to_string());
        match &problem {
            Some(error) if self.problem != problem => {
                warn!(error, advice = ADVICE, "Changes of files are noticed late");
            }
            None if self.problem.is_some() => info!("Changes of files are noticed at once again"),
            Some(_) | None => {}
        }
        self.problem = problem;
        self.directories = directories;
    }

    /// Whether all is watched that is to be.
    pub(crate) fn is_complete(&self) -> bool {
        self.watcher.is_some() && self.problem.is_none()
    }

    /// Whether this directory is watched.
    pub(crate) fn is_on(&self, directory: &PathBuf) -> bool {
        self.directories.contains(directory)
    }

    fn try_on(&mut self, directories: &BTreeSet<PathBuf>) -> notify::Result<()> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => self.watcher.insert(watcher(self.changed.clone())?),
        };
        for gone in self.directories.difference(directories) {
            // If it was deleted, so was its watch.
            drop(watcher.unwatch(gone));
        }
        let watch = |directory: &PathBuf| watcher.watch(directory, RecursiveMode::NonRecursive);
        directories.iter().map(watch).filter(|outcome| !outcome.as_ref().is_err_and(is_absence)).collect()
    }
}

fn watcher(changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| is_change(&event)) {
            changed.notify_one();
        }
    };
    RecommendedWatcher::new(tell, Config::default().with_follow_symlinks(false))
}

/// Whether an event says more than that somebody read: notify tells of that as well, and looking is reading.
fn is_change(event: &notify::Event) -> bool {
    let is_written = event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
    event.need_rescan() || is_written || !event.kind.is_access()
}

/// Whether a directory vanished before it was watched. That is told by the watch of the one above.
fn is_absence(error: &notify::Error) -> bool {
    matches!(error.kind, notify::ErrorKind::PathNotFound)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::time::Duration;

    use futures::StreamExt;
    use futures::stream::LocalBoxStream;
    use notify::event::Flag;

    use super::*;

    /// What is told is told at once; but machines that run tests are slow now and then.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// Long enough for what is told late, and for what is not.
    const QUIET: Duration = Duration::from_millis(100);

    /// What somebody does to a directory with a file.
    type Change = fn(&Path);

    struct Scene {
        temporary: tempfile::TempDir,
        watch: Watch,
        changes: LocalBoxStream<'static, ()>,
    }

    impl Scene {
        fn new() -> Self {
            let temporary = tempfile::tempdir().unwrap();
            fs::create_dir(temporary.path().join("d")).unwrap();
            fs::write(temporary.path().join("d/f"), "x").unwrap();
            let watch = Watch::default();
            let mut scene = Self { temporary, changes: watch.changes().boxed_local(), watch };
            scene.watch();
            scene
        }

        fn watch(&mut self) {
            let path = self.temporary.path();
            self.watch.on([path.to_owned(), path.join("d")].into());
            assert!(self.watch.is_complete());
        }

        async fn is_told(&mut self, within: Duration) -> bool {
            tokio::time::timeout(within, self.changes.next()).await.is_ok()
        }

        async fn settle(&mut self) {
            while self.is_told(QUIET).await {}
        }
    }

    #[tokio::test]
    async fn every_change_is_told() {
        let changes: [(&str, Change); 8] = [
            ("content", |d| fs::write(d.join("f"), "y").unwrap()),
            ("mode", |d| fs::set_permissions(d.join("f"), Permissions::from_mode(0o600)).unwrap()),
            ("truncation", |d| drop(fs::File::create(d.join("f")).unwrap())),
            ("deletion", |d| fs::remove_file(d.join("f")).unwrap()),
            ("symbolic link", |d| symlink("nowhere", d.join("f")).unwrap()),
            ("rename", |d| fs::rename(d.join("f"), d.join("g")).unwrap()),
            ("directory", |d| fs::create_dir(d.join("f")).unwrap()),
            ("directory above", |d| fs::remove_dir_all(d).unwrap()),
        ];
        let mut scene = Scene::new();
        for (what, change) in changes {
            scene.settle().await;
            change(&scene.temporary.path().join("d"));
            assert!(scene.is_told(PATIENCE).await, "{what}");
        }
    }

    #[tokio::test]
    async fn reading_is_no_change_and_neither_is_watching_again() {
        let mut scene = Scene::new();
        scene.settle().await;
        fs::read(scene.temporary.path().join("d/f")).unwrap();
        fs::read_dir(scene.temporary.path().join("d")).unwrap().count();
        scene.watch();
        assert!(!scene.is_told(QUIET).await);
    }

    #[tokio::test]
    async fn a_directory_that_was_made_anew_is_watched_again() {
        let mut scene = Scene::new();
        let directory = scene.temporary.path().join("d");
        for round in 0..20 {
            fs::remove_dir_all(&directory).unwrap();
            fs::create_dir(&directory).unwrap();
            assert!(scene.is_told(PATIENCE).await, "directory {round}");
            scene.watch();
            scene.settle().await;
            scene.watch();
            fs::write(directory.join("f"), "y").unwrap();
            assert!(scene.is_told(PATIENCE).await, "file in directory {round}");
        }
    }

    #[test]
    fn an_overflow_is_a_change() {
        let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(is_change(&overflow));
        assert!(!is_change(&notify::Event::new(EventKind::Access(AccessKind::Open(AccessMode::Any)))));
    }
}
