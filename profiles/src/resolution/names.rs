//! The references that mean something on this node.

use std::collections::BTreeSet;

use crate::bundle::{Bundle, Document, Kind};
use crate::reference::Reference;
use crate::state::State;

/// The references of one kind that mean something on this node, or would if a selector were another one.
pub(crate) fn known(state: &State, kind: Kind) -> BTreeSet<String> {
    let home = &state.config.home;
    let bundles = state.bundles.values().filter(|bundle| bundle.kind == Some(kind));
    match kind {
        Kind::Seccomp => {
            let of_bundles = bundles.flat_map(|bundle| {
                bundle.profiles.keys().map(|key| Reference::new(home, &bundle.id, key.clone()).to_string())
            });
            of_bundles.chain(state.files.keys().map(ToString::to_string)).collect()
        }
        Kind::AppArmor => {
            let documents = bundles.flat_map(Bundle::accepted).map(|(_, document)| document);
            let of_bundles = documents.flat_map(Document::names);
            of_bundles.chain(state.policies.profiles.keys()).map(ToString::to_string).collect()
        }
    }
}
