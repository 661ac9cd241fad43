//! Says what an AppArmor text declares, and what is wrong with that, before anything compiles it.
//!
//! Invariant: a text without an error among its findings declares the names that are told, as far as its
//! author can tell; what it was compiled to is compared with them before it is loaded. All findings come in
//! one pass.

use std::collections::{BTreeMap, BTreeSet};

use crate::apparmor::name::ProfileName;
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::findings::{Findings, excerpt};

mod lexer;
mod outline;
mod runs;

use lexer::Token;
pub(crate) use outline::Include;
use outline::{Change, MOST, Outline, Profile};

/// Names that container runtimes and others give to profiles of their own, and what does. Where a text had
/// one, the runtime would replace the profile, or run all its containers with it. A `*` at the end stands for
/// anything.
const RESERVED: &[(&str, &str)] = &[
    ("docker-default", "Docker"),
    ("cri-containerd.apparmor.d", "containerd"),
    ("nerdctl-default", "nerdctl"),
    ("crio-default*", "CRI-O"),
    ("containers-default*", "Podman and Buildah"),
    ("libpod-default*", "Podman"),
    ("lxc-*", "LXC"),
    ("lxd-*", "LXD"),
    ("incus-*", "Incus"),
    ("libvirt-*", "libvirt"),
    ("snap.*", "snapd"),
    ("snap-update-ns.*", "snapd"),
];

/// What a text declares, and what there is to say of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scanned {
    /// The names of its profiles, without children and hats. Those that can't be one of ours are left out,
    /// and are among the findings.
    pub names: BTreeSet<ProfileName>,
    /// Every finding, in the order of the text. Empty: nothing to say.
    pub findings: Vec<Diagnostic>,
}

/// Reads `text` as `apparmor_parser` would.
#[must_use]
pub fn scan(text: &str) -> Scanned {
    let outline = Outline::new(text);
    let mut scan = Scan::default();
    for include in &outline.includes {
        scan.include(include);
    }
    for profile in &outline.profiles {
        scan.name(profile);
        scan.mode(profile);
        for change in &profile.changes {
            scan.change(change);
        }
    }
    if outline.is_cut {
        let message = format!("the text declares more than {MOST} profiles, children and hats together");
        scan.findings.add(Code::PolicyLimit, || Place::at("$"), message, "spread them over several keys");
    }
    // Where the text can't be read, the parser says why.
    if outline.profiles.is_empty() && !outline.is_broken {
        let help = "write profile <name> { … }";
        let message = "the text declares no profile".to_owned();
        scan.findings.add(Code::NoProfile, || Place::at("$"), message, help);
    }
    Scanned { names: scan.names, findings: scan.findings.end() }
}

/// What the text includes, in its order.
pub(crate) fn includes(text: &str) -> Vec<Include<'_>> {
    Outline::new(text).includes
}

#[derive(Default)]
struct Scan<'a> {
    names: BTreeSet<ProfileName>,
    /// Where each name was declared first. Of children and hats the parser tells: some are there only on a
    /// condition.
    declared: BTreeMap<&'a str, (usize, usize)>,
    findings: Findings,
}

impl<'a> Scan<'a> {
    fn find(&mut self, code: Code, at: (usize, usize), message: impl FnOnce() -> String, help: &'static str) {
        let message = if self.findings.is_told(code) { message() } else { String::new() };
        self.findings.add(code, || place(at), message, help);
    }

    fn include(&mut self, include: &Include<'_>) {
        if include.is_own() {
            return;
        }
        let help = "include <abstractions/…>, <tunables/…> or if exists <local/…>, or write the rules here";
        let (message, help): (fn(&str) -> String, _) = if include.is_abi {
            let help = "write abi <abi/3.0>,";
            (|path| format!("{path:?} is none of AppArmor's own abi files by its path"), help)
        } else if include.is_searched && include.path.starts_with("local/") {
            let message =
                |path: &str| format!("{path:?} is a file of a node's own, and none of those is in the image");
            (message, "include if exists, or write the rules here")
        } else {
            (|path| format!("{path:?} is none of AppArmor's own files by its path"), help)
        };
        self.find(Code::ForeignInclude, include.at, || message(&excerpt(include.path)), help);
    }

    fn name(&mut self, profile: &Profile<'a>) {
        let Token { text, at, .. } = profile.name;
        if text.starts_with(':') {
            let message = || format!("{:?} is for another namespace of policies", excerpt(text));
            self.find(Code::PolicyNamespace, at, message, "leave the namespace out");
        } else if profile.parent.is_none() {
            self.own_name(text, at);
        }
        if profile.parent.is_some() {
            return;
        }
        let first = *self.declared.entry(text).or_insert(at);
        if first != at {
            let message = || format!("{:?} is declared on line {} as well", excerpt(text), first.0);
            self.find(Code::DuplicateProfile, at, message, "rename one of the two");
        }
        if let Some(attachment) = profile.attachment {
            let message = || {
                let (name, attachment) = (excerpt(text), excerpt(attachment.text));
                format!("the profile {name:?} attaches itself to programs of the node by {attachment:?}")
            };
            let help = "leave it out: pods ask for the profile by its name";
            self.find(Code::Attachment, attachment.at, message, help);
        }
    }

    /// The name of a profile that pods can ask for.
    fn own_name(&mut self, text: &str, at: (usize, usize)) {
        match ProfileName::new(text) {
            Ok(name) => drop(self.names.insert(name)),
            Err(error) => {
                let message = || format!("{:?} can't be the name of a profile: {error}", excerpt(text));
                let help = "give it a plain name, such as profile web { … }";
                self.find(Code::InvalidProfileName, at, message, help);
            }
        }
        if let Some(owner) = reserved(text) {
            let message = || format!("{:?} is the name of a profile of {owner}", excerpt(text));
            self.find(Code::ReservedProfile, at, message, "choose another name");
        }
    }

    /// What the profile's flags say, and whether programs start in it.
    fn mode(&mut self, profile: &Profile<'_>) {
        let name = || excerpt(profile.name.text);
        let flag = |wanted: &[&str]| profile.flags.iter().find(|flag| wanted.contains(&flag.text));
        if let Some(flag) = flag(&["unconfined", "default_allow"]) {
            let message =
                || format!("with the flag {}, the profile {:?} restricts nothing", flag.text, name());
            self.find(
                Code::UnconfinedProfile,
                flag.at,
                message,
                "leave the flag out, and allow what is needed",
            );
            return;
        }
        if let Some(flag) = flag(&["complain"]) {
            let message = || format!("the profile {:?} only logs what it does not allow", name());
            self.find(Code::ComplainMode, flag.at, message, "remove the flag once the log is quiet");
            if let Some(deny) = profile.deny {
                let message = || format!("the profile {:?} only logs, but enforces its deny rules", name());
                self.find(
                    Code::DenyInComplainMode,
                    deny,
                    message,
                    "leave deny rules out until it is enforced",
                );
            }
        } else if profile.parent.is_none() && !profile.has_base {
            let message = || {
                let name = name();
                format!(
                    "the profile {name:?} neither includes <abstractions/base> nor allows file: most programs will \
                     not start"
                )
            };
            let help = "add include <abstractions/base>";
            self.find(Code::NoBaseAbstraction, profile.name.at, message, help);
        }
    }

    fn change(&mut self, change: &Change<'_>) {
        let message = match change.target {
            None => "the rule lets programs change to any profile".to_owned(),
            Some(target) if is_any(target) => {
                format!("the rule lets programs change to any profile: {:?}", excerpt(target))
            }
            Some("unconfined") => "the rule lets programs leave all confinement".to_owned(),
            Some(_) if change.is_unsafe => {
                "unsafe lets a program keep an environment by which it controls the next one".to_owned()
            }
            Some(_) => return,
        };
        let help = "name the profile that programs shall change to, without unsafe";
        self.find(Code::BroadChangeProfile, change.at, || message, help);
    }
}

fn place(position: (usize, usize)) -> Place {
    Place { position: Some(position), path: "$".to_owned() }
}

/// Whether every name matches.
fn is_any(target: &str) -> bool {
    let target = target.trim_start_matches('&');
    target.contains('*') && target.bytes().all(|byte| b"*?/{,}".contains(&byte))
}

fn reserved(name: &str) -> Option<&'static str> {
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    RESERVED.iter().find(|(pattern, _)| matches(pattern)).map(|(_, owner)| *owner)
}

impl Include<'_> {
    /// Whether it can only be one of AppArmor's own files.
    fn is_own(&self) -> bool {
        let is_plain = |part: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte);
            !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_plain)
        };
        let Some((directory, rest)) = self.path.split_once('/') else { return false };
        let is_known = match directory {
            "abi" => self.is_abi,
            "abstractions" | "tunables" => !self.is_abi,
            "local" => !self.is_abi && self.if_exists,
            _ => false,
        };
        self.is_searched && is_known && rest.split('/').all(is_plain)
    }
}

#[cfg(test)]
mod tests;
