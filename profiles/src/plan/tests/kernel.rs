//! Scripts about AppArmor: further words.
//!
//! A text is written `a+b/1`: it declares the profiles `a` and `b`, and this is its version. `bad` declares
//! none.
//!
//! | word | what happens |
//! |---|---|
//! | `apply ~web:k=a+b/1` | a bundle of AppArmor texts |
//! | `kernel a=a+b/1 c=c/1:absent` | a scan finds these; `changed`, `stale` (for another compiler) and `lost` (stale and absent), `forgotten` (the host has no blob) too |
//! | `compiled`, `refused`, `failed` | the planned texts are compiled; they are refused; the compiler fails |
//! | `compiling` | the compiler has begun with them |
//! | `done`, `fail`, `fail-owned`, `foreign`, `fail-removal` | the planned steps end so |
//! | `foreign-name a` | somebody else has the name `a`, and the other names of its text are not loaded for that |
//! | `in-use` | processes run under what is to be removed |
//! | `pods p=a,web/b q=%bundle/web`, `pod p=c`, `pod-gone p` | the pods of the node, the profiles that they refer to (with a `/`: seccomp), and the labels that they select on |
//! | `pods-unknown` | it is not known which pods there are |

use super::*;
use crate::apparmor::kernel::{FoundPolicy, InKernel};
use crate::apparmor::policy::{Contents, Mode, Policy};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::platform::AppArmor;
use crate::pod::{Pod, PodId, Pods, examples};
use crate::state::{Compiled, Event};
use scene::Scene;

/// Plays `script` on a node with AppArmor and a Node without labels.
pub(super) fn check_apparmor(script: &[(&str, &str)]) {
    let mut scene = apparmor();
    for (number, (happens, expected)) in script.iter().enumerate() {
        scene.play(happens);
        assert_eq!(scene.plan(), *expected, "after line {number}, {happens:?}");
    }
}

/// A node with the text `a/1` of the bundle `web` loaded and labelled, and no pods.
pub(super) fn settled(script: &[(&str, &str)]) {
    let begin: &[(&str, &str)] = &[
        ("kernel a=a/1", ""),
        ("node apparmor/a bundle/web", ""),
        ("pods", ""),
        ("list ~web:k=a/1", "compile a/1"),
        ("compiled", ""),
    ];
    check_apparmor(&[begin, script].concat());
}

/// A node with AppArmor whose disk is empty.
pub(crate) fn apparmor() -> Scene {
    let mut scene = Scene::new();
    scene.state.config.apparmor = AppArmor::Enabled;
    scene.play("scan");
    scene
}

pub(super) fn name(text: &str) -> ProfileName {
    ProfileName::new(text).unwrap()
}

/// The text that is written so.
pub(super) fn text(word: &str) -> String {
    let Some((names, version)) = word.split_once('/') else { return format!("# {word}\n") };
    names.split('+').fold(format!("# {version}\n"), |text, name| text + "profile " + name + " {\n}\n")
}

/// How the text with this content is written.
pub(super) fn word(content: &str) -> String {
    let version = content.lines().next().unwrap().trim_start_matches("# ");
    let names = content.lines().filter_map(|line| line.strip_prefix("profile ")?.strip_suffix(" {"));
    format!("{}/{version}", names.collect::<Vec<_>>().join("+"))
}

pub(super) fn names(word: &str) -> BTreeSet<ProfileName> {
    word.split_once('/').unwrap().0.split('+').map(name).collect()
}

pub(super) fn digest(word: &str) -> Digest {
    Digest::of(text(word).as_bytes())
}

/// What the compiler of number `compiler` makes of a text.
pub(super) fn blob(text: Digest, compiler: u32) -> Digest {
    Digest::of(format!("{text} {compiler}").as_bytes())
}

pub(super) fn policy(text: Digest, names: &BTreeSet<ProfileName>, compiler: u32) -> Policy {
    let contents = || Contents { mode: Mode::Enforce, children: BTreeMap::new() };
    let profiles = names.iter().map(|name| (name.clone(), contents())).collect();
    Policy { text, blob: blob(text, compiler), profiles }
}

pub(super) fn refusal() -> Diagnostic {
    let message = "syntax error".to_owned();
    Diagnostic { code: Code::InvalidPolicy, place: Place::at("$"), message, help: "" }
}

/// `p=a,web/b,%bundle/web`
fn pod(text: &str) -> (PodId, Pod) {
    let (uid, words) = text.split_once('=').unwrap();
    let id = PodId { namespace: "ns".to_owned(), name: uid.to_owned(), uid: uid.to_owned() };
    let label = |word: &str| word.replacen('/', ".pavise.dev/", 1);
    let word = |word: &str| if word.starts_with('%') { label(word) } else { word.to_owned() };
    (id, examples::pod(words.split(',').filter(|word| !word.is_empty()).map(word)))
}

/// `a=a+b/1:absent`
fn found(text: &str) -> (ProfileName, FoundPolicy) {
    let (of, what) = text.split_once('=').unwrap();
    let (text, what) = what.split_once(':').unwrap_or((what, ""));
    let text = digest(text);
    let is_current = !matches!(what, "stale" | "lost" | "forgotten");
    let blob = blob(text, u32::from(is_current || what == "forgotten"));
    let kernel = match what {
        "" | "stale" | "forgotten" => InKernel::Ours(blob),
        "absent" | "lost" => InKernel::Absent,
        "changed" => InKernel::Changed("another digest"),
        other => panic!("unknown word {other:?}"),
    };
    (name(of), FoundPolicy { text, blob, is_current, kernel })
}

impl Scene {
    /// Plays a word that is about AppArmor. Returns whether it is one.
    pub(super) fn play_apparmor(&mut self, word: &str, rest: &str) -> bool {
        let texts = rest.split([' ', ',', '=', ':']).filter(|text| text.contains('/'));
        self.texts.extend(texts.map(|text| (digest(text), text.to_owned())));
        match word {
            "kernel" => self.apply(Event::PolicyScanned(rest.split_whitespace().map(found).collect())),
            "pods-unknown" => self.state.pods = Pods::default(),
            "pods" => self.apply(Event::PodsListed(rest.split_whitespace().map(pod).collect())),
            "pod" => {
                let (id, pod) = pod(rest);
                self.apply(Event::PodApplied(id, pod));
            }
            "pod-gone" => self.apply(Event::PodDeleted(pod(&format!("{rest}=")).0)),
            "compiled" => self.compile(|compile| {
                // What the host has is compiled by what its text declares.
                Compiled::Accepted(policy(compile.text, &compile.names, 1), [].into())
            }),
            "refused" => self.compile(|_| Compiled::Refused([refusal()].into())),
            "failed" => self.compile(|_| Compiled::Failed),
            "compiling" => {
                let plan = self.state.plan(self.now);
                plan.compile.into_iter().for_each(|compile| self.apply(Event::Compiling(compile.text)));
            }
            "in-use" => {
                let plan = self.state.plan(self.now);
                plan.unload.into_iter().for_each(|name| self.apply(Event::PolicyInUse(name)));
            }
            _ => return false,
        }
        true
    }

    fn compile(&mut self, outcome: impl Fn(&Compile) -> Compiled) {
        for compile in self.state.plan(self.now).compile {
            self.apply(Event::Compiling(compile.text));
            self.apply(Event::Compiled { text: compile.text, outcome: outcome(&compile) });
        }
    }

    /// Ends the planned loads so, and each removal well.
    pub(super) fn finish_loads(&mut self, plan: &Plan, outcome: impl Fn(&Load, ProfileName) -> Event) {
        for load in &plan.load {
            load.names.iter().for_each(|name| self.apply(outcome(load, name.clone())));
        }
        plan.unload.iter().for_each(|name| self.apply(Event::PolicyRemoved(name.clone())));
    }

    /// What the plan says about AppArmor, in words.
    pub(super) fn apparmor_words(&self, plan: &Plan) -> Vec<String> {
        let text = |text: &Digest| self.texts.get(text).cloned().unwrap_or_else(|| text.to_string());
        let compile = plan.compile.iter().map(|compile| match &compile.document {
            Some(document) => format!("compile {}", word(&String::from_utf8_lossy(document.content()))),
            None => format!("recompile {}", text(&compile.text)),
        });
        let load = plan.load.iter().map(|load| {
            assert_eq!(load.names, names(&text(&load.text)), "{load:?} is not all of the text");
            format!("load {}", text(&load.text))
        });
        let unload = plan.unload.iter().map(|name| format!("unload {name}"));
        compile.chain(load).chain(unload).collect()
    }
}

/// That a profile was loaded.
pub(super) fn loaded(load: &Load, name: ProfileName) -> Event {
    Event::PolicyLoaded { name, text: load.text, blob: blob(load.text, 1) }
}
