//! What tests of several modules start from.

use std::time::Duration;

use profiles::bundle::{Bundle, BundleId, Source};
use profiles::name::{Namespace, NodeName};
use profiles::platform::{AppArmor, Architecture, Kernel, Platform};
use profiles::pod::{Asked, Container, ContainerKind, Pod};
use profiles::report::{Agent, Circumstances, Report};
use profiles::state::{Config, Event, NodeLabels, State};
use profiles::time::Time;
use profiles::verdicts::Verdicts;

/// A node as most are.
pub(crate) const PLATFORM: Platform =
    Platform { architecture: Architecture::Amd64, kernel: Kernel { major: 6, minor: 12 } };

/// A ConfigMap of seccomp profiles, of which nothing is said but its `data`.
pub(crate) fn source(namespace: &str, name: &str, data: &[(&str, &str)]) -> Source {
    Source {
        id: BundleId::new(namespace, name).unwrap(),
        uid: String::new(),
        kind: "seccomp".to_owned(),
        annotations: [].into(),
        created: None,
        data: data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect(),
        binary_keys: Vec::new(),
    }
}

/// The bundle that `source` is on [`PLATFORM`].
pub(crate) fn judged(source: Source) -> Bundle {
    Bundle::of(source, &mut Verdicts::new(PLATFORM))
}

/// A ConfigMap of AppArmor texts, of which nothing is said but its `data`.
pub(crate) fn apparmor_source(namespace: &str, name: &str, data: &[(&str, &str)]) -> Source {
    Source { kind: "apparmor".to_owned(), ..source(namespace, name, data) }
}

/// The report of a node of which nothing is known but that it exists.
pub(crate) fn report() -> Report {
    let (home, others) = (Namespace::new("n").unwrap(), [].into());
    let removal_delay = Duration::from_mins(5);
    let mut state = State::new(Config {
        home,
        others,
        removal_delay,
        node: Some(NodeName::new("node1").unwrap()),
        apparmor: AppArmor::Disabled,
    });
    state.apply(Event::NodeListed(NodeLabels::default()), Time::default());
    let agent = Agent { version: "1".to_owned(), pod: None };
    let circumstances = Circumstances {
        agent: &agent,
        platform: PLATFORM,
        unready: &[],
        findings: &[],
        clock: "2026-01-01T00:00:00Z",
    };
    state.report(Time::default(), &circumstances).unwrap()
}

/// A pod with a container of this AppArmor profile.
pub(crate) fn pod_with_apparmor(reference: &str) -> Pod {
    pod(Asked::Nothing, Asked::Localhost(reference.to_owned()))
}

/// The same of this seccomp profile.
pub(crate) fn pod_with_seccomp(reference: &str) -> Pod {
    pod(Asked::Localhost(reference.to_owned()), Asked::Nothing)
}

fn pod(seccomp: Asked, apparmor: Asked) -> Pod {
    let container = Container {
        name: "c".to_owned(),
        kind: ContainerKind::Regular,
        is_privileged: false,
        seccomp,
        apparmor,
        running: None,
    };
    Pod { containers: vec![container], ..Pod::default() }
}
