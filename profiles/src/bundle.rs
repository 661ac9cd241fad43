//! What an author publishes: one ConfigMap's worth of profiles, or one directory's, each judged.
//!
//! Invariant: refusals are per profile. A [`Bundle`] can always be made, whatever its ConfigMap or directory
//! holds; what is wrong with it is in its diagnostics, and the rest is served.

mod kind;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

pub use kind::{KIND_LABEL, Kind};

use crate::annotation::Annotations;
use crate::apparmor::name::ProfileName;
use crate::apparmor::text::{self, Scanned};
use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::digest::Digest;
use crate::name::{BundleName, InvalidName, Namespace, ProfileKey};
use crate::platform::Platform;
use crate::seccomp::{self, Checked};
use crate::selector::Selector;
use crate::verdicts::Verdicts;

/// How many keys a bundle has at most: one with a hundred thousand, which a ConfigMap can hold, would cost
/// each agent more memory than it has.
pub(crate) const MOST_KEYS: usize = 2_000;

/// How many AppArmor profiles a bundle declares at most. A ConfigMap can hold 80,000 empty ones, whose names
/// alone would take five times its size. It is full with 10,000 of 100 bytes each, rules and all.
pub(crate) const MOST_NAMES: usize = 10_000;

/// Which bundle: the namespace and name of its ConfigMap. Written `<namespace>/<name>`. A directory of
/// profiles counts as one.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BundleId {
    /// The namespace of the ConfigMap.
    pub namespace: Namespace,
    /// The name of the ConfigMap.
    pub name: BundleName,
}

impl BundleId {
    /// Checks both names.
    ///
    /// # Errors
    /// [`InvalidName`] for the first that is not valid.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self { namespace: Namespace::new(namespace)?, name: BundleName::new(name)? })
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A ConfigMap that is labelled as a bundle, as it stands, as far as it matters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    /// Its namespace and name.
    pub id: BundleId,
    /// What tells it from another one of the same name, before or after.
    pub uid: String,
    /// The value of the label that makes it a bundle: of what.
    pub kind: String,
    /// Its annotations, also those of others.
    pub annotations: BTreeMap<String, String>,
    /// When it was made, in seconds since 1970, if the API server says so.
    pub created: Option<i64>,
    /// Its `data`.
    pub data: BTreeMap<String, String>,
    /// The keys of its `binaryData`.
    pub binary_keys: Vec<String>,
}

#[cfg(test)]
impl Source {
    /// A ConfigMap of seccomp profiles, of which nothing is said but its `data`.
    pub(crate) fn example(name: &str, data: &[(&str, &str)]) -> Self {
        Self {
            id: BundleId::new("ns", name).unwrap(),
            uid: "u".to_owned(),
            kind: "seccomp".to_owned(),
            annotations: BTreeMap::new(),
            created: None,
            data: data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect(),
            binary_keys: Vec::new(),
        }
    }
}

/// A bundle as it was last seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    /// Which bundle it is.
    pub id: BundleId,
    /// What it holds; none if its label names no kind that there is.
    pub kind: Option<Kind>,
    /// When it was made, in seconds since 1970, if that is known: the older of two bundles comes first.
    pub created: Option<i64>,
    /// The labels of the Nodes that it is for; none if its annotation can't be read, so that nobody knows.
    pub nodes: Option<Selector>,
    /// Whether its author wants a label for each profile, beside the one for the bundle.
    pub has_profile_labels: bool,
    /// Its profiles, accepted or refused.
    pub profiles: BTreeMap<ProfileKey, Profile>,
    /// Findings about the bundle itself; those about one profile are with the profile.
    pub diagnostics: Vec<Diagnostic>,
}

impl Bundle {
    /// Judges the ConfigMap `source`. What `verdicts` has of the version before is not judged again.
    #[must_use]
    pub fn of(source: Source, verdicts: &mut Verdicts) -> Self {
        let Source { id, kind: word, annotations, created, data, binary_keys, .. } = source;
        let kind = Kind::from_word(&word);
        let Annotations { nodes, has_profile_labels, diagnostics } = Annotations::read(&annotations);
        let profiles = BTreeMap::new();
        let mut bundle = Self { id, kind, created, nodes, has_profile_labels, profiles, diagnostics };
        let Some(kind) = kind else {
            bundle.diagnostics = vec![Kind::unknown(&word)];
            return bundle;
        };
        let count = data.len() + binary_keys.len();
        if count > MOST_KEYS {
            bundle.diagnostics.push(too_many(count));
            return bundle;
        }
        for (key, profile) in verdicts.of(kind, &bundle.id, data) {
            bundle.add(Place::at(format!("$.data[{key:?}]")), &key, profile);
        }
        for key in binary_keys {
            let place = Place::at(format!("$.binaryData[{key:?}]"));
            bundle.add(place.clone(), &key, Profile::Refused([binary(place)].into()));
        }
        bundle.end()
    }

    /// The bundle `id`, of which nothing is said but `diagnostics`.
    fn bare(id: BundleId, diagnostics: Vec<Diagnostic>) -> Self {
        let (kind, nodes) = (Some(Kind::Seccomp), Some(Selector::default()));
        let profiles = BTreeMap::new();
        Self { id, kind, created: None, nodes, has_profile_labels: true, profiles, diagnostics }
    }

    /// Judges the directory `id`, of seccomp profiles: the text of each of its files, or why there is none. What `verdicts` has of
    /// the version before is not judged again.
    #[must_use]
    pub fn of_seccomp_files(
        id: BundleId,
        files: BTreeMap<String, Result<String, Diagnostic>>,
        verdicts: &mut Verdicts,
    ) -> Self {
        if files.len() > MOST_KEYS {
            return Self::bare(id, vec![too_many(files.len())]);
        }
        let (mut texts, mut profiles) = (BTreeMap::new(), Vec::new());
        for (key, text) in files {
            match text {
                Ok(text) => drop(texts.insert(key, text)),
                Err(why) => profiles.push((key, Profile::Refused([why].into()))),
            }
        }
        profiles.extend(verdicts.of(Kind::Seccomp, &id, texts));
        let mut bundle = Self::bare(id, Vec::new());
        for (key, profile) in profiles {
            bundle.add(Place::at(format!("$[{key:?}]")), &key, profile);
        }
        bundle.end()
    }

    /// The bundle `id` of a directory, of which nothing can be told, for this reason, which has the code
    /// [`Code::Unreadable`].
    #[must_use]
    pub fn unreadable(id: BundleId, why: Diagnostic) -> Self {
        Self::bare(id, vec![why])
    }

    fn add(&mut self, place: Place, key: &str, profile: Profile) {
        match ProfileKey::new(key) {
            Ok(key) => drop(self.profiles.insert(key, profile)),
            Err(error) => self.diagnostics.push(Diagnostic {
                code: Code::InvalidKey,
                place,
                message: error.to_string(),
                help: "rename the key",
            }),
        }
    }

    /// All was added. A name that two texts declare belongs to the first of them, and so does the room for names.
    fn end(mut self) -> Self {
        let mut declared: BTreeMap<ProfileName, ProfileKey> = BTreeMap::new();
        for (key, profile) in &mut self.profiles {
            let Profile::Accepted(document, findings) = profile else { continue };
            let twice = document.names().iter().find_map(|name| Some((name, declared.get(name)?)));
            if let Some((name, first)) = twice {
                let twice = declared_twice(key, name, first);
                *profile = Profile::Refused(findings.iter().cloned().chain([twice]).collect());
                continue;
            }
            if declared.len() + document.names().len() > MOST_NAMES {
                let finding = too_many_names(key);
                *profile = Profile::Refused(findings.iter().cloned().chain([finding]).collect());
                continue;
            }
            declared.extend(document.names().iter().map(|name| (name.clone(), key.clone())));
        }
        if self.profiles.is_empty() {
            self.diagnostics.push(empty());
        }
        self
    }

    /// The same without contents, for who only asks what there is: of a document its digest and names stay,
    /// of what is refused the first error.
    #[must_use]
    pub(crate) fn outline(&self) -> Self {
        let profiles = self.profiles.iter().map(|(key, profile)| (key.clone(), profile.outline()));
        Self {
            profiles: profiles.collect(),
            id: self.id.clone(),
            nodes: self.nodes.clone(),
            diagnostics: self.diagnostics.clone(),
            ..*self
        }
    }

    /// What of it is accepted.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (&ProfileKey, &Document)> + Clone {
        self.profiles.iter().filter_map(|(key, profile)| Some((key, profile.accepted()?)))
    }

    /// Whether it can be told what the bundle asks for.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        !self.has_any(&[Code::Unreadable, Code::TooManyKeys])
    }

    fn has_any(&self, codes: &[Code]) -> bool {
        self.diagnostics.iter().any(|diagnostic| codes.contains(&diagnostic.code))
    }

    /// Whether the bundle as a whole has no error.
    pub(crate) fn is_sound(&self) -> bool {
        !has_error(&self.diagnostics)
    }

    /// Whether its profiles are all there is to it: no key of it is left out.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_readable() && !self.has_any(&[Code::InvalidKey, Code::UnknownKind])
    }

    /// Where it stands among others: the older of two comes first. So all nodes agree, and a new bundle takes
    /// nothing away from an older one.
    pub(crate) fn seniority(&self) -> impl Ord {
        (self.created.unwrap_or(i64::MAX), self.id.clone())
    }

    /// Whether it is for a Node with these `labels`. None if that can't be told: its selector can't be read,
    /// or the labels are not known.
    pub(crate) fn is_for(&self, labels: Option<&BTreeMap<String, String>>) -> Option<bool> {
        let selector = self.nodes.as_ref()?;
        if selector.is_empty() {
            return Some(true);
        }
        labels.map(|labels| selector.matches(labels))
    }
}

/// One key of a bundle, judged. Cloning one is cheap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Profile {
    /// It may be put on nodes, in spite of these warnings.
    Accepted(Document, Arc<[Diagnostic]>),
    /// It must not, for these reasons.
    Refused(Arc<[Diagnostic]>),
}

impl Profile {
    /// The document; none if it is refused.
    pub(crate) fn accepted(&self) -> Option<&Document> {
        match self {
            Self::Accepted(document, _) => Some(document),
            Self::Refused(_) => None,
        }
    }

    /// Judges `text`, which is of `kind`, for nodes of `platform`.
    pub(crate) fn of(kind: Kind, text: String, platform: Platform) -> Self {
        let (document, findings) = match kind {
            Kind::Seccomp => {
                let Checked { findings, resolved } = seccomp::check(&text, platform);
                (Document::new(resolved.unwrap_or(text), BTreeSet::new()), findings)
            }
            Kind::AppArmor => {
                let Scanned { names, findings } = text::scan(&text);
                (Document::new(text, names), findings)
            }
        };
        if has_error(&findings) {
            return Self::Refused(findings.into());
        }
        Self::Accepted(document, findings.into())
    }

    fn outline(&self) -> Self {
        match self {
            Self::Accepted(document, _) => Self::Accepted(document.outline(), [].into()),
            Self::Refused(findings) => {
                let error = findings.iter().find(|finding| finding.severity() == Severity::Error);
                Self::Refused(error.cloned().into_iter().collect())
            }
        }
    }

    /// What is to be said of it: warnings, or the reasons for its refusal.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Accepted(_, diagnostics) | Self::Refused(diagnostics) => diagnostics,
        }
    }
}

/// An accepted content. Cloning one is cheap.
#[derive(Clone, Debug)]
pub struct Document {
    content: Arc<str>,
    digest: Digest,
    names: Arc<BTreeSet<ProfileName>>,
}

impl Document {
    fn new(text: String, names: BTreeSet<ProfileName>) -> Self {
        Self { digest: Digest::of(text.as_bytes()), content: text.into(), names: names.into() }
    }

    /// The seccomp document that was accepted before, by the bytes that are on disk now. None if they are
    /// others.
    #[must_use]
    pub fn kept(content: Vec<u8>, digest: Digest) -> Option<Self> {
        let document = Self::new(String::from_utf8(content).ok()?, BTreeSet::new());
        Some(document).filter(|document| document.digest == digest)
    }

    /// The bytes: as the author wrote them, or what that is on the node.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.content.as_bytes()
    }

    /// The same as text, without a copy.
    #[must_use]
    pub fn text(&self) -> Arc<str> {
        self.content.clone()
    }

    /// The digest of [`Self::content`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The profiles that an AppArmor text declares. None for a seccomp document, which is one by itself.
    #[must_use]
    pub fn names(&self) -> &BTreeSet<ProfileName> {
        &self.names
    }

    /// The same, without a copy.
    pub(crate) fn shared_names(&self) -> Arc<BTreeSet<ProfileName>> {
        self.names.clone()
    }

    /// The same document without its content.
    pub(crate) fn outline(&self) -> Self {
        Self { content: "".into(), digest: self.digest, names: self.names.clone() }
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Document {}

pub(crate) fn has_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error)
}

fn binary(place: Place) -> Diagnostic {
    Diagnostic {
        code: Code::BinaryData,
        place,
        message: "the document is in binaryData, so it is not UTF-8 text".to_owned(),
        help: "put it into data, as UTF-8 without a byte order mark",
    }
}

fn declared_twice(key: &ProfileKey, name: &ProfileName, first: &ProfileKey) -> Diagnostic {
    Diagnostic {
        code: Code::DuplicateProfile,
        place: Place::at(format!("$.data[\"{key}\"]")),
        message: format!("the key {first} declares the profile {name} already"),
        help: "rename one of the two profiles, or take one of the texts out",
    }
}

fn too_many_names(key: &ProfileKey) -> Diagnostic {
    Diagnostic {
        code: Code::PolicyLimit,
        place: Place::at(format!("$.data[\"{key}\"]")),
        message: format!("with this text the bundle declares more than {MOST_NAMES} profiles"),
        help: "make several bundles of it",
    }
}

fn too_many(count: usize) -> Diagnostic {
    Diagnostic {
        code: Code::TooManyKeys,
        place: Place::at("$"),
        message: format!("the bundle has {count} keys, and {MOST_KEYS} is the most"),
        help: "make several bundles of it; until then, the profiles before stay",
    }
}

fn empty() -> Diagnostic {
    Diagnostic {
        code: Code::EmptyBundle,
        place: Place::at("$"),
        message: "the bundle holds no profile".to_owned(),
        help: "add one profile per key, or delete the bundle",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;

    /// An AppArmor text that declares these profiles.
    fn declaring(names: &str) -> String {
        names
            .split_whitespace()
            .fold(String::new(), |text, name| text + "profile " + name + " {\n  file,\n}\n")
    }

    fn of_apparmor(data: &[(&str, &str)]) -> Bundle {
        let source = Source { kind: "apparmor".to_owned(), ..Source::example("b", data) };
        Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE))
    }

    /// Claims which keys are accepted and refused, and the codes of the bundle's own diagnostics.
    fn check(data: &[(&str, &str)], binary: &[&str], accepted: &[&str], refused: &[&str], codes: &[Code]) {
        let binary_keys = binary.iter().map(|key| (*key).to_owned()).collect();
        let source = Source { binary_keys, ..Source::example("b", data) };
        let bundle = Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE));
        let (good, bad): (Vec<_>, Vec<_>) =
            bundle.profiles.iter().partition(|(_, profile)| matches!(profile, Profile::Accepted(..)));
        assert_eq!(good.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), accepted);
        assert_eq!(bad.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), refused);
        assert_eq!(bundle.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), codes);
    }

    #[test]
    fn one_bad_profile_does_not_keep_the_others_out() {
        check(&[("a.json", GOOD), ("b.json", "{}")], &[], &["a.json"], &["b.json"], &[]);
    }

    #[test]
    fn a_text_goes_to_the_node_as_it_is_unless_it_has_to_be_resolved() {
        let resolved =
            "{\n  \"defaultAction\": \"SCMP_ACT_LOG\",\n  \"defaultErrnoRet\": 38,\n  \"syscalls\": []\n}";
        for (text, expected) in [
            (GOOD, Some(GOOD)),
            (" {\"defaultAction\": \"SCMP_ACT_LOG\"}\n", Some(" {\"defaultAction\": \"SCMP_ACT_LOG\"}\n")),
            (r#"{"defaultAction":"SCMP_ACT_LOG","defaultErrno":"ENOSYS"}"#, Some(resolved)),
            (r#"{"defaultAction":"SCMP_ACT_LOG","defaultErrno":"ENO"}"#, None),
        ] {
            let content = match Profile::of(Kind::Seccomp, text.to_owned(), Platform::EXAMPLE) {
                Profile::Accepted(document, _) => Some(document.content().to_vec()),
                Profile::Refused(_) => None,
            };
            assert_eq!(content.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn the_texts_of_a_bundle_declare_10_000_profiles_at_most() {
        let names =
            |text: usize| (0..500).fold(String::new(), |names, number| names + &format!("p{text}-{number} "));
        let texts: Vec<_> = (0..22).map(|text| (format!("k{text:0>2}"), declaring(&names(text)))).collect();
        let data: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        let refused = |bundle: &Bundle| {
            let all = bundle.profiles.iter().filter(|(_, profile)| !profile.diagnostics().is_empty());
            all.map(|(key, profile)| format!("{key}: {}", profile.diagnostics()[0])).collect::<Vec<_>>()
        };
        assert_eq!(refused(&of_apparmor(&data[..20])), [""; 0]);
        let message =
            "with this text the bundle declares more than 10000 profiles; make several bundles of it";
        let expected =
            ["k20", "k21"].map(|key| format!("{key}: error[policy-limit] $.data[\"{key}\"]: {message}"));
        assert_eq!(refused(&of_apparmor(&data)), expected);
        // A smaller one may fit.
        let (large, small) = (declaring(&(names(20) + "more")), declaring("small"));
        let data = [&data[..19], &[("k20", large.as_str()), ("small", small.as_str())]].concat();
        assert_eq!(refused(&of_apparmor(&data)), expected[..1]);
    }

    #[test]
    fn a_bundle_holds_what_its_label_says() {
        let bundle = of_apparmor(&[("a", &declaring("one two")), ("b", "# nothing\n")]);
        assert_eq!(bundle.kind, Some(Kind::AppArmor));
        let names = |profile: &Profile| match profile {
            Profile::Accepted(document, _) => document.names().iter().map(ToString::to_string).collect(),
            Profile::Refused(_) => vec!["refused".to_owned()],
        };
        assert_eq!(
            bundle.profiles.values().map(names).collect::<Vec<_>>(),
            [vec!["one", "two"], vec!["refused"]]
        );

        let source = Source { kind: "secomp".to_owned(), ..Source::example("b", &[("a", GOOD)]) };
        let bundle = Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE));
        assert_eq!((bundle.kind, bundle.profiles.len()), (None, 0));
        assert!(!bundle.is_complete() && bundle.has_any(&[Code::UnknownKind]));
    }

    #[test]
    fn a_name_that_two_keys_declare_belongs_to_the_first() {
        let texts = [("a", "one"), ("b", "two one"), ("c", "two"), ("d", "two")];
        let texts = texts.map(|(key, names)| (key, declaring(names)));
        let bundle = of_apparmor(&texts.each_ref().map(|(key, text)| (*key, text.as_str())));
        let errors = |profile: &Profile| {
            let errors = profile.diagnostics().iter().filter(|finding| finding.severity() == Severity::Error);
            errors.map(|finding| finding.code).collect()
        };
        assert_eq!(
            bundle.profiles.values().map(errors).collect::<Vec<Vec<_>>>(),
            [vec![], vec![Code::DuplicateProfile], vec![], vec![Code::DuplicateProfile]],
            "what b declares besides is free"
        );
    }

    #[test]
    fn binary_data_is_refused_and_the_rest_is_served() {
        check(&[("a.json", GOOD)], &["z.json"], &["a.json"], &["z.json"], &[]);
    }

    #[test]
    fn a_key_that_is_no_path_component_is_refused_and_the_rest_is_served() {
        check(&[("a.json", GOOD), ("../b", GOOD)], &["c/d"], &["a.json"], &[], &[Code::InvalidKey; 2]);
    }

    #[test]
    fn a_file_without_a_text_is_refused_and_the_rest_is_served() {
        let why = |code| Diagnostic { code, place: Place::at("$"), message: String::new(), help: "" };
        let files = [
            ("a.json", Ok(GOOD.to_owned())),
            ("b.json", Err(why(Code::Unreadable))),
            ("c d", Err(why(Code::Unreadable))),
        ];
        let files = files.map(|(key, text)| (key.to_owned(), text)).into();
        let mut verdicts = Verdicts::new(Platform::EXAMPLE);
        let bundle = Bundle::of_seccomp_files(BundleId::new("ns", "b").unwrap(), files, &mut verdicts);
        let is_accepted = |profile: &Profile| matches!(profile, Profile::Accepted(..));
        assert_eq!(bundle.profiles.values().map(is_accepted).collect::<Vec<_>>(), [true, false]);
        assert_eq!(bundle.diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [Code::InvalidKey]);
        assert!(bundle.is_readable(), "a file of it is not, but it is known which");
        assert!(!Bundle::unreadable(bundle.id, why(Code::Unreadable)).is_readable());
    }

    #[test]
    fn a_bundle_with_too_many_keys_asks_for_what_it_asked_for_before() {
        let keys: Vec<String> = (0..=MOST_KEYS).map(|number| number.to_string()).collect();
        let data: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), GOOD)).collect();
        let mut source = Source::example("b", &data);
        source.annotations.insert("pavise.dev/node-selector".to_owned(), "disk=ssd".to_owned());
        let bundle = Bundle::of(source, &mut Verdicts::new(Platform::EXAMPLE));
        assert!(!bundle.is_readable() && !bundle.is_complete());
        assert_eq!(bundle.is_for(Some(&BTreeMap::new())), Some(false), "it is for the same nodes as ever");
    }

    #[test]
    fn an_empty_bundle_is_worth_a_warning() {
        check(&[], &[], &[], &[], &[Code::EmptyBundle]);
        assert_eq!(Code::EmptyBundle.severity(), Severity::Warning);
    }
}
