//! Whether what a text was compiled to is what it declares.
//!
//! Invariant: a [`Policy`] that comes from here has exactly the declared profiles, with children of theirs and
//! no others. All are in the namespace of the node, none restricts nothing, and no process gets one unasked.

use std::collections::{BTreeMap, BTreeSet};

use super::blob::{self, Unpacked};
use super::name::{LONGEST, ProfileName};
use super::policy::{Contents, Mode, Policy};
use crate::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::digest::Digest;
use crate::findings::{cut, visible};

#[cfg(test)]
mod tests;

/// The largest blob that is loaded, in bytes. The largest of Debian's own profiles has half of that.
pub const LARGEST: usize = 4 << 20;

/// As many findings are told.
const MOST: usize = 100;

/// Compares `blob`, to which the text of digest `text` was compiled, with the profiles that the text declares.
///
/// Children may have attachments, as those are only tried where a rule of their parent lets a program have a
/// child (`find_attach` in security/apparmor/domain.c).
///
/// With the policy come warnings of what the text is also asked for: a reader of the text sees less of it. They
/// have the same codes, so whoever shows both leaves those out whose codes were given for the text.
///
/// # Errors
/// Findings, of which one at least is an error: the blob must not be loaded.
pub fn judge(
    text: Digest,
    names: &BTreeSet<ProfileName>,
    blob: &[u8],
) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
    if blob.len() > LARGEST {
        let message = format!("it is compiled to {} bytes, which is more than {LARGEST}", blob.len());
        let help = "split it, or use fewer patterns with ** and alternatives in one profile";
        return Err(vec![finding(Code::PolicyLimit, message, help)]);
    }
    if blob.is_empty() && names.is_empty() {
        let message = "the text declares no profile: it is compiled to nothing".to_owned();
        return Err(vec![finding(Code::NoProfile, message, "write profile <name> { … }")]);
    }
    let unpacked = blob::read(blob).map_err(|malformed| {
        let message = format!("what it is compiled to can't be read: {malformed}");
        vec![finding(Code::PolicyMismatch, message, OPERATOR)]
    })?;
    let mut judge = Judge { names, profiles: BTreeMap::new(), findings: Vec::new() };
    let mut all = BTreeSet::new();
    for profile in &unpacked {
        if !all.insert(profile.name) {
            let message = format!("the profile {} is in what it is compiled to twice", shown(profile.name));
            judge.find(Code::DuplicateProfile, message, "declare it once");
        }
    }
    // Parents come before their children.
    let mut unpacked = unpacked;
    unpacked.sort_by_key(|profile| profile.name);
    for profile in &unpacked {
        judge.profile(profile, &all);
    }
    for name in names.iter().filter(|name| !all.contains(name.as_str().as_bytes())) {
        let message = format!("it declares the profile {name}, which is not in what it is compiled to");
        judge.find(Code::PolicyMismatch, message, OPERATOR);
    }
    judge.ended(text, blob)
}

/// What compiling a text `found` beside what was `told` of the text before: a blob shows again what its text
/// says.
pub fn beside<'f>(told: &[Diagnostic], found: &'f [Diagnostic]) -> impl Iterator<Item = &'f Diagnostic> {
    let told: BTreeSet<Code> = told.iter().map(|finding| finding.code).collect();
    found.iter().filter(move |finding| !told.contains(&finding.code))
}

/// What an author can do who sees nothing wrong.
const OPERATOR: &str = "tell who runs Pavise: compiler and agent must be of one image";

struct Judge<'n> {
    names: &'n BTreeSet<ProfileName>,
    profiles: BTreeMap<ProfileName, Contents>,
    findings: Vec<Diagnostic>,
}

impl Judge<'_> {
    fn find(&mut self, code: Code, message: String, help: &'static str) {
        self.findings.push(finding(code, message, help));
    }

    /// Judges one of the profiles named `all`.
    fn profile(&mut self, profile: &Unpacked<'_>, all: &BTreeSet<&[u8]>) {
        let name = shown(profile.name);
        // The kernel takes a name to begin with a namespace if its first letter is a colon
        // (`aa_splitn_fqname` in security/apparmor/lib.c).
        if profile.namespace.is_some() || profile.name.trim_ascii_start().starts_with(b":") {
            let message = match profile.namespace {
                Some(namespace) => format!("the profile {name} is for the namespace {}", shown(namespace)),
                None => format!("the profile {name} is for a namespace"),
            };
            self.find(Code::PolicyNamespace, message, "declare it without a namespace");
            return;
        }
        if let Some(renamed) = profile.rename {
            let message = format!("the profile {name} would take the place of {}", shown(renamed));
            self.find(Code::PolicyMismatch, message, OPERATOR);
        }
        match profile.mode {
            Mode::Unconfined => {
                let message = format!("the profile {name} restricts nothing");
                let help = "leave out its flag unconfined or default_allow, or leave out the profile";
                self.find(Code::UnconfinedProfile, message, help);
            }
            Mode::Complain => {
                let message = format!("the profile {name} only logs what it does not allow");
                self.find(Code::ComplainMode, message, "leave out its flag complain to enforce it");
            }
            Mode::Enforce | Mode::Kill | Mode::User => {}
        }
        if profile.name.windows(2).any(|pair| pair == b"//") {
            self.child(profile, all);
        } else {
            self.parent(profile);
        }
    }

    /// Judges a profile that is no child.
    fn parent(&mut self, profile: &Unpacked<'_>) {
        if profile.attaches || profile.name.starts_with(b"/") {
            let message = format!("the profile {} attaches itself to programs", shown(profile.name));
            let help =
                "give it a name that does not start with /, and no path after that: pods ask for it by name";
            self.find(Code::Attachment, message, help);
        }
        let name = std::str::from_utf8(profile.name).ok().and_then(|name| ProfileName::new(name).ok());
        if let Some(name) = name.filter(|name| self.names.contains(name)) {
            self.profiles.insert(name, Contents { mode: profile.mode, children: BTreeMap::new() });
        } else {
            let name = shown(profile.name);
            let message = format!("it is compiled to a profile {name}, which it does not declare");
            self.find(Code::PolicyMismatch, message, "write the name as it is, without variables");
        }
    }

    /// Judges a profile whose name has its parent's before it.
    fn child(&mut self, profile: &Unpacked<'_>, all: &BTreeSet<&[u8]>) {
        // Names are taken apart from the left (`__lookup_parent` in security/apparmor/policy.c).
        let name = std::str::from_utf8(profile.name).ok().filter(|name| name.split("//").all(is_part));
        let Some((name, (parent, own))) = name.and_then(|name| Some((name, name.split_once("//")?))) else {
            let message = format!("the child {} has a name that is not allowed", shown(profile.name));
            let help = "name children in ASCII without spaces, 200 bytes at most, not starting with & or :";
            self.find(Code::InvalidProfileName, message, help);
            return;
        };
        // The kernel finds no parent for it (ENOENT), and Linux 6.12 may load nothing else after that.
        if own.contains("//") {
            let message =
                format!("the child {} is in another child, which the kernel refuses", shown(profile.name));
            self.find(Code::PolicyMismatch, message, "declare it directly in a profile, not in a child");
            return;
        }
        if !all.contains(parent.as_bytes()) {
            let message = format!("the child {name} has no parent in what it is compiled to");
            let help =
                "declare it directly in a profile, not in a child: AppArmor 3.0 loses track of its parents";
            self.find(Code::PolicyMismatch, message, help);
            return;
        }
        let parent = ProfileName::new(parent).ok();
        if let Some(contents) = parent.and_then(|parent| self.profiles.get_mut(&parent)) {
            contents.children.insert(name.to_owned(), profile.mode);
        }
    }

    fn ended(mut self, text: Digest, blob: &[u8]) -> Result<(Policy, Vec<Diagnostic>), Vec<Diagnostic>> {
        // Errors first, and so the first that are told.
        self.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity()));
        if self.findings.len() > MOST {
            self.findings.truncate(MOST);
            let message = format!("there is more: {MOST} findings are told at most");
            self.find(Code::MoreFindings, message, "correct these first");
        }
        if self.findings.iter().any(|finding| finding.severity() == Severity::Error) {
            return Err(self.findings);
        }
        let policy = Policy { text, blob: Digest::of(blob), profiles: self.profiles };
        Ok((policy, self.findings))
    }
}

/// Whether a child may have `part` as its own name: it would be one everywhere where the kernel reads names,
/// where `&` stands before a further profile, `:` before a namespace, and a space before the mode.
fn is_part(part: &str) -> bool {
    (1..=LONGEST).contains(&part.len())
        && !part.starts_with(['&', ':'])
        && part.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A name as it can be shown, whatever is in it.
fn shown(name: &[u8]) -> String {
    visible(cut(&String::from_utf8_lossy(name), 200))
}

fn finding(code: Code, message: String, help: &'static str) -> Diagnostic {
    Diagnostic { code, place: Place::at("$"), message, help }
}
