//! The texts and blobs of AppArmor profiles, on the node's own disk: what is loaded after a reboot, before
//! there is a network.
//!
//! Invariants: what is read is what was written, by its digest, and was judged again; a file of which that
//! can't be said is not there. A kept blob is durable before anybody is told so. Nothing is removed that the
//! ledger refers to. What is kept and comes to nothing is removed when nobody wants it any more
//! ([`super::PolicyHost::forget`]), and what a crash leaves behind at the next start.
//!
//! Both files are called by the digest of the text. That of the blob begins with a line of JSON, which says
//! what it was compiled for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::errno::Errno;
use profiles::apparmor::name::ProfileName;
use profiles::apparmor::policy::{Contents, Policy};
use profiles::diagnostic::Diagnostic;
use profiles::digest::Digest;
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use super::kernel::Fingerprint;
use crate::host::dir::Directory;
use crate::host::error::HostError;

const NAME: &str = "apparmor";
const TEXT: &str = ".text";
const BLOB: &str = ".blob";

/// Reads a blob, and compares it with what the text of this digest declares. The policy in it, or what is
/// wrong with it.
pub(crate) type Judge =
    fn(Digest, &BTreeSet<ProfileName>, &[u8]) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>>;

/// The directory of both, and what is in it.
#[derive(Debug)]
pub(crate) struct Store {
    directory: Directory,
    judge: Judge,
    /// The texts of which there may be files.
    texts: BTreeSet<Digest>,
    /// The blobs, by the digests of their texts.
    kept: BTreeMap<Digest, Kept>,
}

/// What is known of a blob without reading it again.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) policy: Policy,
    pub(crate) fingerprint: Fingerprint,
    /// Of the kernel and the compiler that it was compiled for.
    pub(crate) identity: Digest,
}

/// The first line of a blob's file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Header {
    identity: Digest,
    blob: Digest,
    names: BTreeSet<ProfileName>,
}

impl Store {
    /// Opens the store in `state_dir` and reads all of it. What `referred` does not have is removed.
    pub(crate) fn open(
        state_dir: &Path,
        judge: Judge,
        referred: &BTreeSet<Digest>,
    ) -> Result<Self, HostError> {
        let directory = Directory::open(state_dir)?.make(NAME)?;
        let mut store = Self { directory, judge, texts: referred.clone(), kept: BTreeMap::new() };
        store.directory.sweep()?;
        for name in store.directory.names()? {
            let text = name.strip_suffix(TEXT).or_else(|| name.strip_suffix(BLOB)).and_then(digest);
            match text {
                Some(text) if referred.contains(&text) => {}
                Some(_) | None => store.remove_file(&name),
            }
        }
        for text in referred {
            if let Some((kept, _)) = store.read(*text) {
                store.kept.insert(*text, kept);
            }
        }
        Ok(store)
    }

    /// Keeps a text and what was compiled from it for `identity`, durably.
    pub(crate) fn keep(
        &mut self,
        text: &str,
        blob: &[u8],
        names: &BTreeSet<ProfileName>,
        identity: Digest,
    ) -> Result<(), HostError> {
        let digest = Digest::of(text.as_bytes());
        let path = self.directory.path().join(name_of(digest, BLOB));
        let refused = |_| HostError::new("keeping", &path, Errno::EINVAL).advise(" (it is not of its text)");
        let (policy, _) = (self.judge)(digest, names, blob).map_err(refused)?;
        let fingerprint = Fingerprint::of(blob);
        let header = Header { identity, blob: fingerprint.digest, names: names.clone() };
        let mut content =
            serde_json::to_vec(&header).map_err(|error| HostError::new("encoding", &path, error))?;
        content.push(b'\n');
        content.extend_from_slice(blob);
        self.texts.insert(digest);
        self.directory.replace(&name_of(digest, TEXT), text.as_bytes())?;
        self.directory.replace(&name_of(digest, BLOB), &content)?;
        self.directory.sync()?;
        self.kept.insert(digest, Kept { policy, fingerprint, identity });
        Ok(())
    }

    /// The texts that may be in it.
    pub(crate) fn texts(&self) -> impl Iterator<Item = Digest> {
        self.texts.iter().copied()
    }

    /// What is known of the blob of `text`, without reading it again.
    pub(crate) fn kept(&self, text: Digest) -> Option<&Kept> {
        self.kept.get(&text)
    }

    /// What this blob holds of a profile, if it is the one that is kept of `text`.
    pub(crate) fn contents(&self, text: Digest, blob: Digest, name: &ProfileName) -> Option<&Contents> {
        self.kept.get(&text).filter(|kept| kept.policy.blob == blob)?.policy.profiles.get(name)
    }

    /// The blob of `text`, read from the disk and judged.
    fn read(&self, text: Digest) -> Option<(Kept, Vec<u8>)> {
        let content = self.content(&name_of(text, BLOB))?;
        let read = || {
            let end = content.iter().position(|byte| *byte == b'\n')?;
            let (header, blob) = (content.get(..end)?, content.get(end + 1..)?);
            let Header { identity, blob: expected, names } = serde_json::from_slice(header).ok()?;
            let fingerprint = Fingerprint::of(blob);
            let (policy, _) = (self.judge)(text, &names, blob).ok()?;
            (fingerprint.digest == expected)
                .then(|| (Kept { policy, fingerprint, identity }, blob.to_owned()))
        };
        let read = read();
        self.say_if_damaged(text, read.is_none());
        read
    }

    /// The blob that is kept of `text`, read again from the disk: the very bytes that were judged. None if they
    /// are not there any more.
    pub(crate) fn read_again(&self, text: Digest) -> Option<(&Kept, Vec<u8>)> {
        let kept = self.kept.get(&text)?;
        let blob = self.content(&name_of(text, BLOB)).and_then(|mut content| {
            let end = content.iter().position(|byte| *byte == b'\n')?;
            drop(content.drain(..=end));
            Some(content).filter(|blob| Digest::of(blob) == kept.fingerprint.digest)
        });
        self.say_if_damaged(text, blob.is_none());
        Some((kept, blob?))
    }

    /// The same. If it can't be read, it is not kept any more, and has to be compiled again.
    pub(crate) fn read_or_lose(&mut self, text: Digest) -> Option<(Kept, Vec<u8>)> {
        let read = self.read_again(text).map(|(kept, blob)| (kept.clone(), blob));
        if read.is_none() {
            self.kept.remove(&text);
        }
        read
    }

    fn say_if_damaged(&self, text: Digest, is_damaged: bool) {
        if is_damaged {
            warn!(path = %self.directory.path().join(name_of(text, BLOB)).display(), "Damaged blob not used");
        }
    }

    /// The text of this digest.
    pub(crate) fn text(&self, text: Digest) -> Option<String> {
        let content = self.content(&name_of(text, TEXT)).filter(|content| Digest::of(content) == text)?;
        String::from_utf8(content).ok()
    }

    /// Removes a text and its blob, which nothing refers to any more.
    pub(crate) fn remove(&mut self, text: Digest) {
        self.texts.remove(&text);
        self.kept.remove(&text);
        self.remove_file(&name_of(text, BLOB));
        self.remove_file(&name_of(text, TEXT));
    }

    fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.directory.read(name).unwrap_or_else(|error| {
            debug!(error = %error.in_full(), "Stored file can't be read");
            None
        })
    }

    /// Removes a file. If that fails, or is not durable, the next start does it.
    fn remove_file(&self, name: &str) {
        if let Err(error) = self.directory.remove_file(name) {
            warn!(error = %error.in_full(), "Stored file can't be removed");
        }
    }
}

/// What the file of a text is called.
fn name_of(text: Digest, ending: &str) -> String {
    format!("{text}{ending}")
}

fn digest(name: &str) -> Option<Digest> {
    name.parse().ok()
}
