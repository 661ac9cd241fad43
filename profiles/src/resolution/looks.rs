//! Where to look, as pods refer to it.
//!
//! Invariants: a place is looked at once after each scan, if a pod refers to it, and is not if it holds what
//! is ours. To look changes nothing, so it leads to no other scan.

use std::collections::BTreeSet;

use super::policy_name;
use crate::bundle::Kind;
use crate::file::File;
use crate::policy::KernelProfile;
use crate::reference::Reference;
use crate::sight::{Looks, SeccompPath, Sights};
use crate::state::State;

impl State {
    /// The places that containers may be started with, and that were not looked at since the last scan.
    pub(crate) fn looks(&self) -> Looks {
        let Looks { mut files, mut policies } = self.referred();
        files.retain(|place| !self.known.files.contains_key(place) && !self.holds_ours(place));
        policies.retain(|name| {
            let is_loaded = self.policies.profiles.get(name).is_some_and(KernelProfile::is_loaded);
            !is_loaded && !self.known.policies.contains_key(name)
        });
        Looks { files, policies }
    }

    /// The places that containers may be started with.
    fn referred(&self) -> Looks {
        let containers = self.pods.all().into_iter().flatten().filter(|(_, pod)| !pod.has_ended);
        let (mut files, mut policies) = (BTreeSet::new(), BTreeSet::new());
        for container in containers.flat_map(|(_, pod)| &pod.containers) {
            // Of a privileged one, the file is not read.
            files.extend(container.localhost(Kind::Seccomp).filter(|_| !container.is_privileged));
            policies.extend(container.localhost(Kind::AppArmor).filter(|_| self.config.has_apparmor()));
        }
        let files = files.into_iter().filter_map(SeccompPath::of).collect();
        Looks { files, policies: policies.into_iter().filter_map(policy_name).collect() }
    }

    /// Takes over what was seen where [`Self::looks`] said. Of what is missing in it, nothing can be told. What no
    /// pod refers to any more is forgotten: pods come and go, and a scan may be minutes away.
    pub(crate) fn looked(&mut self, mut sights: Sights) {
        let referred = self.referred();
        self.known.files.retain(|place, _| referred.files.contains(place));
        self.known.policies.retain(|name, _| referred.policies.contains(name));
        let Looks { files, policies } = self.looks();
        for place in files {
            let sight = sights.files.remove(&place);
            self.known.files.insert(place, sight);
        }
        for name in policies {
            let sight = sights.policies.remove(&name);
            self.known.policies.insert(name, sight);
        }
    }

    fn holds_ours(&self, place: &SeccompPath) -> bool {
        let own = place.as_str().parse::<Reference>().ok();
        own.and_then(|own| self.files.get(&own)).is_some_and(File::is_loaded)
    }
}
