//! What is kept of all bundles to explain why pods wait: keys, names and refusals, and no content.
//!
//! Invariants: a namespace that was not listed yet is not one without bundles. What the compiler said of a
//! text is kept as long as a bundle has the text.

use std::collections::{BTreeMap, BTreeSet};

use super::asking::Judged;
use crate::bundle::{Bundle, BundleId, Profile};
use crate::diagnostic::{Diagnostic, Severity};
use crate::digest::Digest;
use crate::name::Namespace;
use crate::placement::Bundles;

/// What is said of a namespace that was not listed yet.
const UNLISTED: &str = "they are not listed yet; the log of the catalog says why, if that lasts";

/// All bundles, without contents.
#[derive(Debug)]
pub struct Outlines {
    bundles: Bundles,
    /// The texts that only the compiler refuses.
    refused: BTreeMap<Digest, Diagnostic>,
    /// The texts of each bundle.
    texts: BTreeMap<BundleId, BTreeSet<Digest>>,
}

impl Outlines {
    /// Of the bundles of `home`, which need no namespace in references, and of `namespaces`: none is listed
    /// yet.
    #[must_use]
    pub fn new(home: Namespace, namespaces: impl IntoIterator<Item = Namespace>) -> Self {
        let all = namespaces.into_iter().chain([home.clone()]);
        let read = all.map(|namespace| (namespace, Err(UNLISTED.to_owned()))).collect();
        Self { bundles: Bundles { home, read }, refused: BTreeMap::new(), texts: BTreeMap::new() }
    }

    /// What there is now.
    #[must_use]
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// These are all the bundles of `namespace`.
    pub fn listed(&mut self, namespace: &Namespace, judged: &[Judged]) {
        self.texts.retain(|id, _| id.namespace != *namespace);
        let bundles = judged.iter().filter_map(Judged::outline).map(|bundle| self.hold(bundle)).collect();
        self.bundles.read.insert(namespace.clone(), Ok(bundles));
        self.settle();
    }

    /// A bundle is new, or has changed.
    pub fn applied(&mut self, judged: &Judged) {
        let Some(bundle) = judged.outline() else { return };
        let bundle = self.hold(bundle);
        if let Some(Ok(bundles)) = self.bundles.read.get_mut(&bundle.id.namespace) {
            bundles.retain(|other| other.id != bundle.id);
            bundles.push(bundle);
        }
        self.settle();
    }

    /// A bundle is gone, or is none any more.
    pub fn deleted(&mut self, id: &BundleId) {
        if let Some(Ok(bundles)) = self.bundles.read.get_mut(&id.namespace) {
            bundles.retain(|other| other.id != *id);
        }
        self.texts.remove(id);
        self.settle();
    }

    /// Compiling `text` found this.
    pub fn compiled(&mut self, text: Digest, found: &[Diagnostic]) {
        let Some(error) = found.iter().find(|finding| finding.severity() == Severity::Error) else { return };
        for bundle in self.bundles.read.values_mut().flatten().flatten() {
            refuse(bundle, text, error);
        }
        self.refused.insert(text, error.clone());
        self.settle();
    }

    /// Notes down which texts `bundle` has, and refuses those that the compiler did.
    fn hold(&mut self, mut bundle: Bundle) -> Bundle {
        let texts: BTreeSet<Digest> = bundle.profiles.values().filter_map(digest).collect();
        for (text, error) in texts.iter().filter_map(|text| self.refused.get_key_value(text)) {
            refuse(&mut bundle, *text, error);
        }
        self.texts.insert(bundle.id.clone(), texts);
        bundle
    }

    fn settle(&mut self) {
        let had: BTreeSet<&Digest> = self.texts.values().flatten().collect();
        self.refused.retain(|text, _| had.contains(text));
    }
}

fn refuse(bundle: &mut Bundle, text: Digest, error: &Diagnostic) {
    for profile in bundle.profiles.values_mut().filter(|profile| digest(profile) == Some(text)) {
        *profile = Profile::Refused([error.clone()].into());
    }
}

/// That of an AppArmor text which is not refused.
fn digest(profile: &Profile) -> Option<Digest> {
    match profile {
        Profile::Accepted(document, _) if !document.names().is_empty() => Some(document.digest()),
        Profile::Accepted(..) | Profile::Refused(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Source;
    use crate::diagnostic::{Code, Place};
    use crate::platform::Platform;

    const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

    fn judged(kind: &str, name: &str, data: &[(&str, &str)]) -> Judged {
        let source = Source { kind: kind.to_owned(), ..Source::example(name, data) };
        Judged::of(&source, &[Platform::EXAMPLE].into())
    }

    fn new() -> (Outlines, Namespace) {
        let namespace = Namespace::new("ns").unwrap();
        (Outlines::new(namespace.clone(), [Namespace::new("other").unwrap()]), namespace)
    }

    /// What is known of `ns`: each bundle with its keys, those in brackets that are refused.
    fn shown(outlines: &Outlines) -> String {
        let bundles = outlines.bundles().read.iter().next().and_then(|(_, read)| read.as_deref().ok());
        let shown = bundles.unwrap_or_default().iter().map(|bundle| {
            let keys = bundle.profiles.iter().map(|(key, profile)| match profile {
                Profile::Accepted(document, findings) => {
                    assert!(document.content().is_empty() && findings.is_empty(), "{key} is kept");
                    key.to_string()
                }
                Profile::Refused(errors) => format!("({key}:{})", errors.len()),
            });
            format!("{}={}", bundle.id.name, keys.collect::<Vec<_>>().join(","))
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_is_seen_is_kept_without_contents() {
        let (mut outlines, namespace) = new();
        let bad = r#"{"defaultAction":"X","syscalls":7}"#;
        assert!(outlines.bundles().read.values().all(Result::is_err));
        // What comes before the list is in the list.
        outlines.applied(&judged("seccomp", "early", &[("a", GOOD)]));
        assert_eq!(shown(&outlines), "");
        outlines.listed(&namespace, &[judged("seccomp", "web", &[("a", GOOD), ("b", bad)])]);
        assert_eq!(shown(&outlines), "web=a,(b:1)");
        outlines.applied(&judged("seccomp", "web", &[("a", GOOD)]));
        outlines.applied(&judged("apparmor", "texts", &[("p", "profile p {\n}\n")]));
        assert_eq!(shown(&outlines), "web=a texts=p");
        outlines.deleted(&BundleId::new("ns", "web").unwrap());
        assert_eq!(shown(&outlines), "texts=p");
        assert!(outlines.bundles().read[&Namespace::new("other").unwrap()].is_err());
    }

    #[test]
    fn what_the_compiler_refuses_is_refused_as_long_as_a_bundle_has_it() {
        let (mut outlines, namespace) = new();
        let [bad, good] = ["profile p {\n  fil,\n}\n", "profile q {\n}\n"];
        let texts = judged("apparmor", "texts", &[("p", bad), ("q", good)]);
        let error = Diagnostic {
            code: Code::InvalidPolicy,
            place: Place::at("$"),
            message: "no".to_owned(),
            help: "",
        };
        outlines.listed(&namespace, std::slice::from_ref(&texts));
        outlines.compiled(Digest::of(good.as_bytes()), &[]);
        outlines.compiled(Digest::of(bad.as_bytes()), std::slice::from_ref(&error));
        assert_eq!(shown(&outlines), "texts=(p:1),q");
        outlines.listed(&namespace, std::slice::from_ref(&texts));
        assert_eq!(shown(&outlines), "texts=(p:1),q");
        outlines.applied(&judged("apparmor", "texts", &[("q", good)]));
        assert!(outlines.refused.is_empty());
        // A late answer about a text that no bundle has any more.
        outlines.compiled(Digest::of(bad.as_bytes()), &[error]);
        assert!(outlines.refused.is_empty());
    }
}
