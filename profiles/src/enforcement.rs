//! Whether the node's containers run under the profiles that they ask for: which of them the kernel is asked
//! about, when, and what its answers mean.
//!
//! Invariants: a container is judged by what the kernel said of it, never by what should be; what the kernel
//! can't tell is unknown, and no finding. What it says against a container counts when it says so again a
//! second later: for a moment a container's first process is the runtime's own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::apparmor::label::Label;
use crate::apparmor::policy::Mode;
use crate::bundle::Kind;
use crate::check::{ContainerState, PodChecks, PodReason};
use crate::digest::Digest;
use crate::plan::Plan;
use crate::pod::{Asked, Container, ContainerId, Pod, PodId};
use crate::reference::Reference;
use crate::sight::{Confinement, FileSight, Inspect, SeccompPath, Sights};
use crate::state::State;
use crate::time::{Retry, Time};

/// How often each container is asked about, if nothing happens.
const PAUSE: Duration = Duration::from_mins(5);
/// So long after a container was seen to run the kernel is asked about it: containers are restarted many at once,
/// and finding a new one takes a pass over the node's processes.
const SETTLING: Duration = Duration::from_millis(250);
/// What is due within this time is asked along with what is due now: it may be found in the same pass over
/// the node's processes.
const TOGETHER: Duration = Duration::from_mins(1);
/// The shortest time between two questions for the sake of the kernel's AppArmor policy, which others change
/// too.
const POLICY_PAUSE: Duration = Duration::from_secs(10);
/// How long the kernel has to say the same against a container.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// The mode of a process with seccomp filters (`SECCOMP_MODE_FILTER` in linux/seccomp.h).
const FILTERED: u32 = 2;
/// Of what the kernel says, so much is repeated, in bytes.
const LONGEST_LABEL: usize = 300;

const PRIVILEGED: &str = "the container is privileged, and containers that are privileged run without a seccomp filter, \
                          whatever they ask for: take away one of the two";
const UNFILTERED: &str = "the container runs without a seccomp filter: the container runtime applied none; see whether \
                          the runtime has seccomp enabled, and restart the pod";
const OUTDATED: &str = "the file of the profile has got another content since the container started, which runs under \
                        the one before: restart the pod to have it run under the version of now";
const UNCONFINED: &str = "the container runs without any AppArmor profile: the container runtime applied none, or the \
                          profile was removed from the kernel while the container ran; restart the pod";
const COMPLAIN: &str = "the profile that the container runs under is in complain mode: what it does not allow is only \
                        logged";
const ALLOWING: &str =
    "the profile that the container runs under has the flag unconfined: it restricts nothing";

/// What is known of the containers that run and ask for profiles of the node.
#[derive(Debug, Default)]
pub(crate) struct Enforcement {
    running: Known,
    sample: Sample,
}

type Known = BTreeMap<ContainerId, Running>;

/// A container that runs, and asks for a profile of the node.
#[derive(Debug)]
struct Running {
    asks: Asks,
    /// What the kernel said last.
    said: Option<Confinement>,
    asked_at: Option<Time>,
    /// Since when all that it said is against the container, of profiles of each kind.
    accused_since: BTreeMap<Kind, Time>,
    retry: Retry,
    /// When to ask again.
    due: Time,
    /// The content that was last seen at the path of the file, if that is somebody else's.
    seen: Option<Digest>,
}

/// What a container asks for that the kernel can tell of.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Asks {
    /// A file as its seccomp profile.
    is_seccomp: bool,
    /// That file; none if the reference can mean none.
    file: Option<SeccompPath>,
    /// The name of an AppArmor profile.
    apparmor: Option<String>,
    /// Whether the node's kernel may not be the one that confines it: kata runs it in a virtual machine,
    /// gVisor on a kernel of its own.
    is_elsewhere: bool,
}

/// A container that asks for no seccomp profile: what it has is what the node gives by default.
#[derive(Debug, Default)]
struct Sample {
    /// The last one that the kernel was asked about.
    asked: Option<ContainerId>,
    is_filtered: Option<bool>,
    /// One that has no filter. That says more than those that have one, as programs give themselves some, too: so
    /// the answer does not change with each that is asked about.
    unfiltered: Option<ContainerId>,
    retry: Retry,
}

/// What the kernel's answer says of a profile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict<'a> {
    /// Nothing.
    Unknown,
    Enforced,
    /// A file is, in a former version.
    Outdated,
    Against(Accusation<'a>),
}

/// Why a profile is not enforced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Accusation<'a> {
    Privileged,
    Unfiltered,
    Unconfined,
    /// The AppArmor profile restricts nothing in this mode.
    Lenient(Mode),
    /// The process runs under this label.
    Other(&'a str),
}

impl Asks {
    /// What `container` asks for, if the kernel is to be asked about it.
    fn of(pod: &Pod, container: &Container) -> Option<Self> {
        let seccomp = container.localhost(Kind::Seccomp).filter(|_| !container.is_privileged);
        let apparmor = container.localhost(Kind::AppArmor);
        (seccomp.is_some() || apparmor.is_some()).then(|| Self {
            is_seccomp: seccomp.is_some(),
            file: seccomp.and_then(SeccompPath::of),
            apparmor: apparmor.map(str::to_owned),
            is_elsewhere: pod.runtime_class.is_some(),
        })
    }
}

impl Running {
    fn new(asks: Asks, now: Time) -> Self {
        let (due, retry) = (now + SETTLING, Retry::default());
        Self { asks, said: None, asked_at: None, accused_since: BTreeMap::new(), retry, due, seen: None }
    }

    /// Takes over what the kernel says at `now`.
    fn answered(&mut self, said: Option<Confinement>, now: Time) {
        // Of one that has ended, which the API may not tell for seconds, nothing was put right.
        let is_any_confirmed = Kind::ALL.into_iter().any(|kind| self.is_confirmed(kind));
        if said.is_some() || !is_any_confirmed {
            self.said = said;
        }
        self.asked_at = Some(now);
        let verdicts = Kind::ALL.map(|kind| (kind, self.of(kind)));
        let accused = verdicts.iter().filter(|(_, verdict)| matches!(verdict, Some(Verdict::Against(_))));
        let accused: Vec<Kind> = accused.map(|(kind, _)| *kind).collect();
        let is_unknown = verdicts.iter().any(|(_, verdict)| *verdict == Some(Verdict::Unknown));
        self.accused_since.retain(|kind, _| accused.contains(kind));
        for kind in &accused {
            self.accused_since.entry(*kind).or_insert(now);
        }
        if accused.iter().any(|kind| !self.is_confirmed(*kind)) {
            self.due = now + CONFIRMATION;
        } else if is_unknown || !accused.is_empty() {
            self.retry.failed(now);
            self.due = self.retry.blocked_until(now).unwrap_or(now);
        } else {
            self.retry = Retry::default();
            self.due = now + PAUSE;
        }
    }

    /// Whether what the kernel says against it, of profiles of this kind, was said before.
    fn is_confirmed(&self, kind: Kind) -> bool {
        let (Some(since), Some(last)) = (self.accused_since.get(&kind), self.asked_at) else { return false };
        last >= *since + CONFIRMATION
    }

    fn ask_by(&mut self, time: Time) {
        self.due = self.due.min(time);
    }

    /// Of the seccomp profile; none if it asks for none that the kernel could tell of.
    fn seccomp(&self) -> Option<Verdict<'_>> {
        self.asks.is_seccomp.then(|| self.verdict(of_seccomp))
    }

    /// Of the AppArmor profile.
    fn apparmor(&self) -> Option<Verdict<'_>> {
        let name = self.asks.apparmor.as_deref()?;
        Some(self.verdict(|said| of_apparmor(said, name)))
    }

    /// Of the profile of this kind.
    fn of(&self, kind: Kind) -> Option<Verdict<'_>> {
        match kind {
            Kind::Seccomp => self.seccomp(),
            Kind::AppArmor => self.apparmor(),
        }
    }

    /// What follows from what the kernel said.
    fn verdict<'a>(&'a self, judge: impl FnOnce(&'a Confinement) -> Verdict<'a>) -> Verdict<'a> {
        match self.said.as_ref().map_or(Verdict::Unknown, judge) {
            Verdict::Against(_) if self.asks.is_elsewhere => Verdict::Unknown,
            verdict => verdict,
        }
    }
}

/// What the kernel says of a seccomp profile. It does not tell which filter a process has.
fn of_seccomp(said: &Confinement) -> Verdict<'_> {
    match said.seccomp_mode {
        0 => Verdict::Against(Accusation::Unfiltered),
        FILTERED if said.seccomp_filters == Some(0) => Verdict::Against(Accusation::Unfiltered),
        FILTERED if said.is_outdated => Verdict::Outdated,
        FILTERED => Verdict::Enforced,
        _ => Verdict::Unknown,
    }
}

/// What the kernel says of the AppArmor profile `name`.
fn of_apparmor<'a>(said: &'a Confinement, name: &str) -> Verdict<'a> {
    let Some(label) = said.apparmor.as_deref().map(Label::of) else { return Verdict::Unknown };
    if label.is_unconfined() {
        return Verdict::Against(Accusation::Unconfined);
    }
    if !label.has(name) {
        return Verdict::Against(Accusation::Other(label.profiles()));
    }
    match (label.mode(), label.mode().and_then(Mode::from_word)) {
        (_, Some(mode @ (Mode::Complain | Mode::Unconfined))) => Verdict::Against(Accusation::Lenient(mode)),
        (_, Some(Mode::Enforce | Mode::Kill)) | (Some("mixed"), _) => Verdict::Enforced,
        // A program decides, or the kernel is newer than this.
        (_, Some(Mode::User) | None) => Verdict::Unknown,
    }
}

impl Accusation<'_> {
    fn message(self) -> String {
        match self {
            Self::Privileged => PRIVILEGED.to_owned(),
            Self::Unfiltered => UNFILTERED.to_owned(),
            Self::Unconfined => UNCONFINED.to_owned(),
            Self::Lenient(Mode::Complain) => COMPLAIN.to_owned(),
            Self::Lenient(_) => ALLOWING.to_owned(),
            Self::Other(label) => {
                let shown: String = label.escape_debug().take(LONGEST_LABEL).collect();
                let shown = &shown[..shown.floor_char_boundary(LONGEST_LABEL)];
                format!(
                    "the container runs under another AppArmor profile, `{shown}`: the container runtime applied that, \
                     or its rules led the container's program there; see the runtime's configuration, and restart \
                     the pod"
                )
            }
        }
    }
}

impl Verdict<'_> {
    fn state(self) -> ContainerState {
        match self {
            Self::Unknown => ContainerState::Unknown,
            Self::Enforced => ContainerState::Enforced,
            Self::Outdated => ContainerState::Outdated,
            Self::Against(_) => ContainerState::NotEnforced,
        }
    }

    /// What there is to say about it.
    fn finding(self) -> Option<(PodReason, String)> {
        match self {
            Self::Unknown | Self::Enforced => None,
            Self::Outdated => Some((PodReason::ProfileOutdated, OUTDATED.to_owned())),
            Self::Against(accusation) => Some((PodReason::ProfileNotEnforced, accusation.message())),
        }
    }
}

impl Enforcement {
    /// These pods are all.
    pub(crate) fn listed(&mut self, pods: &BTreeMap<PodId, Pod>, now: Time) {
        let mut before = std::mem::take(&mut self.running);
        for pod in pods.values() {
            self.take_over(&mut before, pod, now);
        }
    }

    /// A pod is new, gone or another one than before.
    pub(crate) fn changed(&mut self, before: Option<&Pod>, after: Option<&Pod>, now: Time) {
        let ids = before.iter().flat_map(|pod| &pod.containers).filter_map(|one| one.running.as_ref());
        let mut before = ids.filter_map(|id| self.running.remove_entry(id)).collect();
        if let Some(pod) = after {
            self.take_over(&mut before, pod, now);
        }
    }

    /// Takes over the containers of `pod`, with what was known of them before.
    fn take_over(&mut self, before: &mut Known, pod: &Pod, now: Time) {
        for container in pod.containers.iter().filter(|_| !pod.has_ended) {
            let (Some(id), Some(asks)) = (&container.running, Asks::of(pod, container)) else { continue };
            let known = before.remove(id).filter(|known| known.asks == asks);
            self.running.insert(id.clone(), known.unwrap_or_else(|| Running::new(asks, now)));
        }
    }

    /// A content was put at `reference`.
    pub(crate) fn installed(&mut self, reference: &Reference, now: Time) {
        let Some(path) = SeccompPath::of(&reference.to_string()) else { return };
        let users = self.running.values_mut().filter(|running| running.asks.file.as_ref() == Some(&path));
        users.for_each(|running| running.ask_by(now));
    }

    /// Places where the ledger has nothing were looked at.
    pub(crate) fn looked(&mut self, sights: &Sights, now: Time) {
        for running in self.running.values_mut() {
            let sight = running.asks.file.as_ref().and_then(|file| sights.files.get(file));
            let Some(FileSight::File(judged)) = sight else { continue };
            if running.seen.replace(judged.digest).is_some_and(|before| before != judged.digest) {
                running.ask_by(now);
            }
        }
    }

    /// The kernel's AppArmor policy may have changed, of whomever.
    pub(crate) fn policy_changed(&mut self) {
        for running in self.running.values_mut().filter(|running| running.asks.apparmor.is_some()) {
            // One that was not asked about yet will be.
            if let Some(asked_at) = running.asked_at {
                running.ask_by(asked_at + POLICY_PAUSE);
            }
        }
    }
}

impl State {
    /// Takes over what the kernel says of containers.
    pub(crate) fn inspected(&mut self, answers: BTreeMap<ContainerId, Option<Confinement>>, now: Time) {
        let sample = self.next_sample().filter(|id| answers.contains_key(id)).cloned();
        let unfiltered = self.enforcement.sample.unfiltered.as_ref();
        let is_unfiltered = self.samples().any(|id| Some(id) == unfiltered);
        let Enforcement { running, sample: known } = &mut self.enforcement;
        if let Some(id) = sample {
            match answers.get(&id).and_then(Option::as_ref) {
                Some(Confinement { seccomp_mode, .. }) => {
                    if *seccomp_mode == 0 {
                        known.unfiltered = Some(id.clone());
                    }
                    known.is_filtered = Some(*seccomp_mode != 0 && !is_unfiltered);
                    known.retry.pause(now, PAUSE);
                }
                None => known.retry.failed(now),
            }
            known.asked = Some(id);
        }
        for (id, said) in answers {
            if let Some(running) = running.get_mut(&id) {
                running.answered(said, now);
            }
        }
    }

    /// Which containers the kernel is to be asked about at `now`.
    pub(crate) fn plan_inspections(&self, now: Time, plan: &mut Plan) {
        let Enforcement { running, sample } = &self.enforcement;
        match sample.retry.blocked_until(now) {
            Some(later) => plan.wake(later),
            None => plan.inspect.extend(self.next_sample().map(|id| Inspect { id: id.clone(), file: None })),
        }
        let Some(first) = running.values().map(|running| running.due).min() else { return };
        if first > now {
            plan.wake(first);
            return;
        }
        let due = running.iter().filter(|(_, running)| running.due <= now + TOGETHER);
        for (id, Running { asks, .. }) in due {
            // The sample may be one of them: it has no file, so this is the same question.
            plan.inspect.insert(Inspect { id: id.clone(), file: asks.file.clone() });
        }
    }

    /// The container to ask about next to know what the node gives by default: each in its turn.
    fn next_sample(&self) -> Option<&ContainerId> {
        let last = self.enforcement.sample.asked.as_ref();
        self.samples().min_by_key(|id| (Some(*id) <= last, *id))
    }

    /// The containers that run and have what the node gives by default.
    fn samples(&self) -> impl Iterator<Item = &ContainerId> {
        let asks_for_nothing =
            |container: &&Container| container.seccomp == Asked::Nothing && !container.is_privileged;
        let pods = self.pods.all().into_iter().flat_map(BTreeMap::values);
        let here = pods.filter(|pod| pod.runtime_class.is_none() && !pod.has_ended);
        let containers = here.flat_map(|pod| &pod.containers).filter(asks_for_nothing);
        containers.filter_map(|container| container.running.as_ref())
    }

    /// Whether containers that ask for no seccomp profile have one nevertheless, as with the kubelet's
    /// `seccompDefault`: by what the kernel says of one of them, each five minutes of another. One that has
    /// none outweighs all that have one. None if there was none to be asked about.
    #[must_use]
    pub fn seccomp_default(&self) -> Option<bool> {
        self.enforcement.sample.is_filtered
    }

    /// Adds what is to be said of containers that run, or will, and are not under the profiles that they ask
    /// for.
    pub(crate) fn check_enforcement(&self, checks: &mut PodChecks) {
        let pods = self.pods.all().into_iter().flatten().filter(|(_, pod)| !pod.has_ended);
        for (id, pod) in pods {
            for container in &pod.containers {
                for kind in [Kind::Seccomp, Kind::AppArmor] {
                    let Some(reference) = container.localhost(kind) else { continue };
                    let verdict = self.verdict(container, kind);
                    if container.running.is_some() {
                        *checks.containers.entry((kind, verdict.state())).or_default() += 1;
                    }
                    let Some((reason, message)) = verdict.finding() else { continue };
                    checks.add(id, container, kind, reference, (reason, &message));
                }
            }
        }
    }

    fn verdict(&self, container: &Container, kind: Kind) -> Verdict<'_> {
        if container.is_privileged && kind == Kind::Seccomp {
            return Verdict::Against(Accusation::Privileged);
        }
        let running = container.running.as_ref().and_then(|id| self.enforcement.running.get(id));
        let is_confirmed = running.is_some_and(|running| running.is_confirmed(kind));
        match running.and_then(|running| running.of(kind)) {
            Some(Verdict::Against(_)) if !is_confirmed => Verdict::Unknown,
            verdict => verdict.unwrap_or(Verdict::Unknown),
        }
    }
}

#[cfg(test)]
mod tests;
