//! What is slow to make is made once and kept outside the checkout, under a key that is the digest of all it is made from.
//!
//! Invariant: an entry that exists is whole. It is made beside its final place and renamed there, under a lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

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
    let parent = directory()?.join(kind);
    fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
    let entry = parent.join(key.name());
    let lock = File::create(parent.join("lock")).with_context(|| format!("locking {}", parent.display()))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("locking {}", parent.display()))?;
    if !entry.exists() {
        let unfinished = parent.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| format!("removing {}", unfinished.display()))?;
        }
        fs::create_dir(&unfinished).with_context(|| format!("creating {}", unfinished.display()))?;
        make(&unfinished)?;
        fs::rename(&unfinished, &entry).with_context(|| format!("naming {}", entry.display()))?;
    }
    Ok(entry)
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
