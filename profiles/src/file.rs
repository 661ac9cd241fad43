//! One reference: what is wanted there, what is there, and what follows from the two.
//!
//! Invariant: [`File::is_loaded`] is true only if the path was last seen to hold bytes that we put there or
//! adopted.

use std::time::Duration;

use crate::bundle::{Document, Profile};
use crate::digest::Digest;
use crate::label::LabelKey;
use crate::pace::Pace;
use crate::reference::Reference;
use crate::state::Found;
use crate::time::{Retry, Time};

/// What is known about one reference.
#[derive(Debug)]
pub(crate) struct File {
    /// The label of the profile; kept here because it is needed for every plan.
    pub(crate) label: LabelKey,
    /// The label of the bundle.
    pub(crate) bundle_label: LabelKey,
    pub(crate) want: Want,
    /// What is on disk, or is to be put back there, while what is wanted is refused: no bundle has it any
    /// more.
    kept: Option<Document>,
    disk: Disk,
    /// The content of ours that was there last, whatever is there now.
    last: Option<Digest>,
    /// Whether the ledger has it, so that we may replace and remove it.
    pub(crate) is_owned: bool,
    /// Of the steps on the disk.
    pub(crate) pace: Pace,
    /// Since when a content is wanted that was never on disk. None as well if the path was found taken: then
    /// it is not up to us when the content comes.
    pub(crate) asked_at: Option<Time>,
}

/// What the bundles ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Want {
    /// This content.
    Document(Document),
    /// A content that is refused, or that may not be meant for this node: whatever is there stays, and is put
    /// back if somebody changes it.
    Refused,
    /// No bundle has asked for it since then.
    Nothing { since: Time },
}

/// What is at the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Disk {
    /// Nothing, as far as we know.
    Absent,
    /// A content that we put there or adopted.
    Ours(Digest),
    /// It is our path, but we can't vouch for its bytes.
    Changed,
    /// Something that we must not touch.
    Foreign,
}

impl File {
    pub(crate) fn new(reference: &Reference, now: Time) -> Self {
        Self {
            label: LabelKey::of_profile(reference),
            bundle_label: LabelKey::of_bundle(reference.namespace(), reference.bundle()),
            want: Want::Nothing { since: now },
            kept: None,
            disk: Disk::Absent,
            last: None,
            is_owned: false,
            pace: Pace::default(),
            asked_at: None,
        }
    }

    /// Takes over what the bundles ask for. Another wish than before is tried at once. An equal one is taken
    /// over as well: its content is the newest bundle's own, and the one before would be held beside it.
    pub(crate) fn set_want(&mut self, want: Want, now: Time) {
        let is_news = self.want != want;
        if is_news {
            self.kept = match (&self.want, &want) {
                (Want::Document(before), Want::Refused) if self.last == Some(before.digest()) => {
                    Some(before.clone())
                }
                _ => None,
            };
        }
        self.want = want;
        if is_news {
            self.pace.start_anew();
            self.asked_at = self.missing().filter(|_| self.want != Want::Refused).map(|_| now);
        }
    }

    /// The content on disk of which there is no copy, and that no bundle has any more.
    pub(crate) fn unkept(&self) -> Option<Digest> {
        match (&self.want, self.disk) {
            (Want::Refused, Disk::Ours(digest))
                if self.kept.as_ref().map(Document::digest) != Some(digest) =>
            {
                Some(digest)
            }
            _ => None,
        }
    }

    /// `document` is on disk.
    pub(crate) fn kept(&mut self, document: Document) {
        self.kept = Some(document).filter(|_| self.want == Want::Refused);
    }

    /// What is on disk could not be copied.
    pub(crate) fn keep_failed(&mut self, now: Time) {
        self.pace.slowed(now);
    }

    /// No bundle asks for it any more. Asked again, it does not start the delay anew.
    pub(crate) fn unwant(&mut self, now: Time) {
        if self.is_wanted() {
            self.set_want(Want::Nothing { since: now }, now);
        }
    }

    /// A bundle might have asked for it until now.
    pub(crate) fn delay_removal(&mut self, now: Time) {
        if let Want::Nothing { since } = &mut self.want {
            *since = now;
        }
    }

    /// Takes over what a scan of the disk says: none if the ledger does not have the reference. What is news
    /// is acted upon at once, unless it is a fight. What is not keeps its pace: each attempt leads to another
    /// scan.
    pub(crate) fn scanned(&mut self, found: Option<Found>, now: Time) {
        self.is_owned = found.is_some();
        let disk = match found {
            None | Some(Found::Absent) => Disk::Absent,
            Some(Found::Ours(digest)) => Disk::Ours(digest),
            Some(Found::Changed(_)) => Disk::Changed,
            Some(Found::NotAFile(_)) => Disk::Foreign,
        };
        if disk == self.disk {
            return;
        }
        if self.pace.is_failing
            && self.missing().is_some_and(|document| disk == Disk::Ours(document.digest()))
        {
            // It came so far before something failed. Only when that succeeds is it known to be durable.
            self.disk = Disk::Changed;
            return;
        }
        let is_drift = self.is_loaded() && !matches!(disk, Disk::Ours(_));
        self.found(disk);
        self.asked_at = self.asked_at.filter(|_| self.missing().is_some());
        if is_drift {
            self.pace.drifted(now);
        } else {
            self.pace.start_anew();
        }
    }

    fn found(&mut self, disk: Disk) {
        self.disk = disk;
        if let Disk::Ours(digest) = disk {
            self.last = Some(digest);
        }
    }

    pub(crate) fn installed(&mut self, digest: Digest) {
        self.is_owned = true;
        self.found(Disk::Ours(digest));
        self.asked_at = None;
        self.pace.start_anew();
    }

    /// The path is taken. Only somebody else can change that, so it is looked at again at a slow, even pace.
    pub(crate) fn blocked(&mut self, now: Time) {
        self.disk = Disk::Foreign;
        self.asked_at = None;
        self.pace.blocked(now, Retry::LONGEST);
    }

    /// Writing failed. The write is atomic, so what was there is still there, or what was to be.
    pub(crate) fn install_failed(&mut self, is_owned: bool, now: Time) {
        self.is_owned = is_owned;
        self.pace.failed(now);
    }

    pub(crate) fn removed(&mut self) {
        self.is_owned = false;
        self.disk = Disk::Absent;
        self.last = None;
        self.pace.start_anew();
    }

    /// Removing failed, maybe only after the file was gone: nothing may lean on it any more.
    pub(crate) fn remove_failed(&mut self, now: Time) {
        self.disk = Disk::Changed;
        self.pace.failed(now);
    }

    pub(crate) fn is_loaded(&self) -> bool {
        matches!(self.disk, Disk::Ours(_))
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !matches!(self.want, Want::Nothing { .. })
    }

    /// Whether there is no reason to remember it.
    pub(crate) fn is_forgettable(&self) -> bool {
        !self.is_wanted() && !self.is_owned
    }

    /// Whether its path is taken by something that was never ours.
    pub(crate) fn is_foreign(&self) -> bool {
        self.disk == Disk::Foreign && !self.is_owned
    }

    /// Whether somebody changed it, and it is not put right. What is absent and was never seen was not
    /// written yet.
    pub(crate) fn is_drifted(&self) -> bool {
        let is_changed = match self.disk {
            Disk::Ours(_) => false,
            Disk::Absent => self.last.is_some(),
            Disk::Changed | Disk::Foreign => true,
        };
        is_changed && self.is_wanted() && self.is_owned && !self.pace.is_failing
    }

    /// Whether this is a content of ours, wanted there or last seen there.
    pub(crate) fn is_ours(&self, digest: Digest) -> bool {
        let wanted = match &self.want {
            Want::Document(document) => Some(document),
            Want::Refused => self.kept.as_ref(),
            Want::Nothing { .. } => None,
        };
        self.is_owned && (wanted.map(Document::digest) == Some(digest) || self.last == Some(digest))
    }

    /// The document that should be on disk and is not.
    pub(crate) fn missing(&self) -> Option<&Document> {
        match &self.want {
            Want::Document(document) if self.disk != Disk::Ours(document.digest()) => Some(document),
            Want::Refused if !self.is_loaded() => self.kept.as_ref(),
            Want::Document(_) | Want::Refused | Want::Nothing { .. } => None,
        }
    }

    /// When it is to go, if `known_since` then all is known that could ask for it; none if it is to stay.
    pub(crate) fn removal_due(&self, known_since: Time, delay: Duration) -> Option<Time> {
        match self.want {
            Want::Nothing { since } => Some(since.max(known_since) + delay),
            Want::Document(_) | Want::Refused => None,
        }
    }

    /// Until when a failed step must wait, if that is still to come.
    pub(crate) fn blocked_until(&self, now: Time) -> Option<Time> {
        self.pace.blocked_until(now)
    }
}

impl Want {
    /// What a bundle asks for with `profile`, if it `is_for` this node, or if nobody knows that. None:
    /// nothing.
    pub(crate) fn of(profile: &Profile, is_for: Option<bool>) -> Option<Self> {
        match (is_for, profile) {
            (Some(false), _) => None,
            (Some(true), Profile::Accepted(document, _)) => Some(Self::Document(document.clone())),
            (Some(true), Profile::Refused(_)) | (None, _) => Some(Self::Refused),
        }
    }
}
