//! Who has which AppArmor profile: the kernel knows one of each name, and several bundles can declare it.
//!
//! - A name belongs to the oldest bundle that declares it and is for this node, and in it to the first key. A
//!   text of which another key has a name is refused as a whole.
//! - A key whose text was not accepted, or not yet, keeps the names of the version before it.
//! - What is loaded is handed over when all is known that could have it: the bundles of all namespaces, and
//!   whether they are for this node. Until then a key gets a name that the ledger has only with the text that
//!   the ledger has, or if it had the name before. So a restart loads nothing that it has to take back.
//! - A bundle of which nobody can say whether it is for this node keeps what it has, and gets nothing new.
//!
//! Invariant: claims follow from bundles, verdicts, the ledger, and what each key had before; nothing is asked
//! of them that they don't have.

use std::collections::{BTreeMap, BTreeSet};

use crate::apparmor::name::ProfileName;
use crate::bundle::{Bundle, BundleId, Document, Profile};
use crate::digest::Digest;
use crate::name::ProfileKey;
use crate::policies::Policies;

/// A key of a bundle of AppArmor texts.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Slot {
    pub(crate) bundle: BundleId,
    pub(crate) key: ProfileKey,
}

/// What a key gets.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Grant {
    /// All that it declares is its own.
    Granted(Document),
    /// That is not decided yet.
    Waiting(Document),
    /// Another key has one of the names that it declares.
    Taken {
        /// The name.
        name: ProfileName,
        /// Who has it.
        by: Slot,
    },
    /// Its text is refused by itself.
    Refused,
    /// It is not known whether the bundle is for this node.
    Undecided {
        /// Whether that only waits for the Node to be seen.
        will_be_known: bool,
    },
}

impl Grant {
    /// The text, unless it is refused.
    pub(crate) fn document(&self) -> Option<&Document> {
        match self {
            Self::Granted(document) | Self::Waiting(document) => Some(document),
            Self::Taken { .. } | Self::Refused | Self::Undecided { .. } => None,
        }
    }
}

/// What the key that has a name wants there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Want {
    /// This text, as soon as it is accepted; until then, what the ledger has.
    Text(Digest),
    /// This text, but who gets the name is not decided yet: what the ledger has.
    Later(Digest),
    /// What the ledger has.
    Kept,
}

impl Want {
    /// The text that is to be there, now or later.
    pub(crate) fn text(self) -> Option<Digest> {
        match self {
            Self::Text(text) | Self::Later(text) => Some(text),
            Self::Kept => None,
        }
    }
}

/// Who has what.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// What each key gets.
    pub(crate) grants: BTreeMap<Slot, Grant>,
    /// Who has each name.
    pub(crate) names: BTreeMap<ProfileName, Claim>,
    /// What each key had with its last accepted text. None: that is not known.
    pub(crate) held: BTreeMap<Slot, BTreeSet<ProfileName>>,
}

/// One name of a key.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) slot: Slot,
    pub(crate) want: Want,
}

impl Claims {
    /// What follows from `bundles`, the oldest first, each with whether it is for this node. `is_complete`:
    /// all is known that could ask for something.
    pub(crate) fn of(bundles: &[(&Bundle, Option<bool>)], past: &Policies, is_complete: bool) -> Self {
        let mut claims = Self::default();
        for (bundle, is_here) in bundles {
            for (key, profile) in &bundle.profiles {
                let slot = Slot { bundle: bundle.id.clone(), key: key.clone() };
                let undecided = is_here.is_none().then(|| bundle.nodes.is_some());
                claims.add(slot, profile, undecided, past, is_complete);
            }
        }
        claims
    }

    /// Adds one key. `undecided`: it is not known whether its bundle is for this node, and whether that will
    /// be known by itself.
    fn add(
        &mut self,
        slot: Slot,
        profile: &Profile,
        undecided: Option<bool>,
        past: &Policies,
        is_complete: bool,
    ) {
        let document = profile.accepted();
        let held = past.held(&slot).cloned();
        let grant = match (undecided, document) {
            (None, None) => Grant::Refused,
            (None, Some(document)) => self.grant(document, held.as_ref(), past, is_complete, &slot),
            (Some(will_be_known), document) => {
                let is_its_own = |document: &Document, name: &ProfileName| {
                    will_be_known || past.owned_text(name) == Some(document.digest())
                };
                if let Some(document) = document {
                    let names = document.names().iter().filter(|name| is_its_own(document, name));
                    names.for_each(|name| self.take(name, &slot, Want::Kept));
                }
                Grant::Undecided { will_be_known }
            }
        };
        let mut held = held;
        match &grant {
            Grant::Granted(document) => {
                let want = Want::Text(document.digest());
                document.names().iter().for_each(|name| self.take(name, &slot, want));
                if past.is_accepted(document.digest()) {
                    held = Some(document.names().clone());
                }
            }
            // Of what another key has, it gets nothing.
            Grant::Waiting(document) => {
                let want = Want::Later(document.digest());
                document.names().iter().for_each(|name| self.take(name, &slot, want));
            }
            Grant::Taken { .. } | Grant::Refused | Grant::Undecided { .. } => {}
        }
        for name in held.iter().flatten() {
            self.take(name, &slot, Want::Kept);
        }
        self.held.extend(held.map(|held| (slot.clone(), held)));
        self.grants.insert(slot, grant);
    }

    /// Gives `name` to `slot`, if nobody has it.
    fn take(&mut self, name: &ProfileName, slot: &Slot, want: Want) {
        if !self.names.contains_key(name) {
            self.names.insert(name.clone(), Claim { slot: slot.clone(), want });
        }
    }

    /// What `slot` gets with `document`.
    fn grant(
        &self,
        document: &Document,
        held: Option<&BTreeSet<ProfileName>>,
        past: &Policies,
        is_complete: bool,
        slot: &Slot,
    ) -> Grant {
        let taken = document.names().iter().find_map(|name| Some((name, self.names.get(name)?)));
        if let Some((name, claim)) = taken.filter(|(_, claim)| claim.slot != *slot) {
            return if self.may_give_up(claim, past) {
                Grant::Waiting(document.clone())
            } else {
                Grant::Taken { name: name.clone(), by: claim.slot.clone() }
            };
        }
        let had = |name: &ProfileName| held.is_some_and(|held| held.contains(name));
        let is_settled = |name: &ProfileName| match past.owned_text(name) {
            Some(text) => text == document.digest() || had(name),
            None => true,
        };
        if is_complete || document.names().iter().all(is_settled) {
            Grant::Granted(document.clone())
        } else {
            Grant::Waiting(document.clone())
        }
    }

    /// Whether who has a name only has it until something is known that will be.
    fn may_give_up(&self, claim: &Claim, past: &Policies) -> bool {
        match self.grants.get(&claim.slot) {
            Some(Grant::Undecided { will_be_known }) => *will_be_known,
            Some(Grant::Granted(document) | Grant::Waiting(document)) => {
                matches!(claim.want, Want::Kept) && past.is_pending(document.digest())
            }
            Some(Grant::Taken { .. } | Grant::Refused) | None => false,
        }
    }
}
