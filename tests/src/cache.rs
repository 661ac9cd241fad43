//! What is slow to make is made once and kept outside the checkout, under a key that is the digest of all it
//! is made from.
//!
//! Invariant: an entry that exists is whole. It is made beside its final place and renamed there, under a
//! lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

/// How many entries of a kind are kept: one for each branch that somebody works on, and some for going back.
const KEPT: usize = 4;
/// The directory of an entry that is being made.
const UNFINISHED: &str = "unfinished";

/// What an entry is made from, as a digest.
#[derive(Default)]
pub struct Key(Sha256);

impl Key {
    /// Adds a word: a version, an option.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.add(text.as_bytes());
        self
    }

    /// Adds a file, or all files below a directory, with their paths relative to `path`.
    ///
    /// # Errors
    /// Something there can't be read.
    pub fn path(mut self, path: &Path) -> anyhow::Result<Self> {
        for file in files_below(path)? {
            let name = file.strip_prefix(path).unwrap_or(&file);
            self.add(name.as_os_str().as_encoded_bytes());
            self.add(&fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
        }
        Ok(self)
    }

    /// Lengths are digested too, so that two neighbours can't trade bytes.
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes.len().to_le_bytes());
        self.0.update(bytes);
    }

    fn name(self) -> String {
        let digest = self.0.finalize();
        digest.iter().take(10).fold(String::new(), |name, byte| name + &format!("{byte:02x}"))
    }
}

/// The cache directory: `PAVISE_CACHE_DIR`, or `pavise` in the user's cache directory (XDG base directories).
///
/// # Errors
/// Neither `PAVISE_CACHE_DIR`, `XDG_CACHE_HOME` nor `HOME` is set.
pub fn directory() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("PAVISE_CACHE_DIR")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("pavise")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/pavise")))
        .context("no place for the cache: set PAVISE_CACHE_DIR or HOME")
}

/// The entry of `kind` for `key`; when there is none yet, `make` fills the new directory that it is given.
///
/// # Errors
/// Those of `make`, and of the file system. A failed attempt leaves no entry.
pub fn entry(
    kind: &str,
    key: Key,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    entry_in(&directory()?.join(kind), key, make)
}

fn entry_in(
    parent: &Path,
    key: Key,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    let entry = parent.join(key.name());
    let lock = File::create(parent.join("lock")).with_context(|| format!("locking {}", parent.display()))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("locking {}", parent.display()))?;
    if !entry.exists() {
        let unfinished = parent.join(UNFINISHED);
        remove(&unfinished)?;
        fs::create_dir(&unfinished).with_context(|| format!("creating {}", unfinished.display()))?;
        make(&unfinished)?;
        fs::rename(&unfinished, &entry).with_context(|| format!("naming {}", entry.display()))?;
    }
    // The time of last use, which decides what is kept.
    File::open(&entry)
        .and_then(|directory| directory.set_modified(SystemTime::now()))
        .with_context(|| format!("using {}", entry.display()))?;
    remove_oldest(parent)?;
    Ok(entry)
}

fn remove_oldest(parent: &Path) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(parent).with_context(|| format!("listing {}", parent.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != UNFINISHED {
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    entries.sort();
    let too_many = entries.len().saturating_sub(KEPT);
    entries.drain(..too_many).try_for_each(|(_, oldest)| remove(&oldest))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn files_below(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        files.extend(files_below(&entry?.path())?);
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    fn make(parent: &Path, key: &str) -> anyhow::Result<PathBuf> {
        entry_in(parent, Key::default().text(key), |entry| Ok(fs::write(entry.join("made"), key)?))
    }

    #[test]
    fn an_entry_is_made_once() {
        let parent = tempfile::tempdir().unwrap();
        let first = make(parent.path(), "a").unwrap();
        let again = entry_in(parent.path(), Key::default().text("a"), |_| bail!("made twice")).unwrap();
        assert_eq!(first, again);
        assert_eq!(fs::read_to_string(again.join("made")).unwrap(), "a");
    }

    #[test]
    fn a_failed_attempt_leaves_no_entry() {
        let parent = tempfile::tempdir().unwrap();
        let failed = entry_in(parent.path(), Key::default().text("a"), |entry| {
            fs::write(entry.join("half"), "")?;
            bail!("no")
        });
        assert!(failed.is_err());
        assert!(!make(parent.path(), "a").unwrap().join("half").exists());
    }

    #[test]
    fn the_entries_that_were_used_last_are_kept() {
        let parent = tempfile::tempdir().unwrap();
        let first = make(parent.path(), "first").unwrap();
        let others: Vec<PathBuf> = (0..KEPT).map(|n| make(parent.path(), &n.to_string()).unwrap()).collect();
        assert!(!first.exists());
        assert!(others.iter().all(|other| other.exists()));
    }

    #[test]
    fn neighbours_can_not_trade_bytes() {
        let key = |words: [&str; 2]| Key::default().text(words[0]).text(words[1]).name();
        assert_ne!(key(["ab", "c"]), key(["a", "bc"]));
    }
}
