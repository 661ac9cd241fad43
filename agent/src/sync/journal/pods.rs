//! What the log says about what pods ask for.
//!
//! Invariant: a problem is logged when it has held for [`SETTLING`], once, and so is its end. What passes
//! before is not worth a line: it is what each deployment of a profile with its pods looks like.

use std::collections::BTreeMap;
use std::rc::Rc;

use profiles::bundle::Kind;
use profiles::check::{PodChecks, PodFinding, PodReason};
use profiles::pod::PodId;
use profiles::saying::SETTLING;
use profiles::time::Time;
use tracing::{info, warn};

/// The container of a pod, which profile of it, and what is wrong with that.
type Place = (PodId, String, Kind, PodReason);

/// The problems that there are.
#[derive(Debug, Default)]
pub(super) struct Pods(BTreeMap<Place, Problem>);

#[derive(Debug)]
struct Problem {
    finding: Rc<PodFinding>,
    since: Time,
    /// What the log has said last: as a rule the same, and held once, as pods decide how many there are.
    logged: Option<Rc<PodFinding>>,
}

/// A line of the log.
#[derive(Debug)]
pub(super) enum Line {
    Begun(Rc<PodFinding>),
    Ended(Rc<PodFinding>),
}

impl Pods {
    /// Takes over what `checks` found. Returns what is news, and when there may be more, if nothing happens
    /// before.
    pub(super) fn checked(&mut self, checks: &PodChecks, now: Time) -> (Vec<Line>, Option<Time>) {
        let mut before = std::mem::take(&mut self.0);
        let (mut news, mut wake_at) = (Vec::new(), None::<Time>);
        for finding in checks.findings.iter().filter(|finding| finding.reason.is_event()) {
            let place = (finding.pod.clone(), finding.container.clone(), finding.kind, finding.reason);
            let mut problem = match before.remove(&place) {
                Some(known) if *known.finding == *finding => known,
                known => {
                    let logged = known.and_then(|known| known.logged);
                    Problem { finding: Rc::new(finding.clone()), since: now, logged }
                }
            };
            let settled = problem.since + SETTLING;
            if problem.logged.as_deref() != Some(finding) {
                if settled <= now {
                    problem.logged = Some(problem.finding.clone());
                    news.push(Line::Begun(problem.finding.clone()));
                } else {
                    wake_at = Some(wake_at.map_or(settled, |wake_at| wake_at.min(settled)));
                }
            }
            self.0.insert(place, problem);
        }
        news.extend(before.into_values().filter_map(|known| known.logged).map(Line::Ended));
        (news, wake_at)
    }
}

impl Line {
    pub(super) fn log(&self) {
        match self {
            Self::Begun(finding) => {
                let PodFinding { pod, container, kind, reference, reason, message, .. } = &**finding;
                let reason = reason.as_str();
                warn!(%pod, container, %kind, reference, reason, message, "Container does not get the profile it asks for");
            }
            Self::Ended(finding) => {
                let PodFinding { pod, container, kind, reference, reason, .. } = &**finding;
                let reason = reason.as_str();
                info!(%pod, container, %kind, reference, reason, "Container problem resolved");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use profiles::pod::ContainerKind;

    use super::*;

    fn finding(container: &str, message: &str) -> PodFinding {
        PodFinding {
            pod: PodId { namespace: "ns".to_owned(), name: "web".to_owned(), uid: "1".to_owned() },
            container: container.to_owned(),
            container_kind: ContainerKind::Regular,
            kind: Kind::Seccomp,
            reference: "b/a.json".to_owned(),
            reason: PodReason::ProfileMissing,
            message: message.to_owned(),
        }
    }

    /// Claims what is news at this millisecond if these are the findings, and when there may be more.
    fn check(pods: &mut Pods, at: u64, findings: &[PodFinding], expected: &[&str], wake_at: Option<u64>) {
        let time = |at| Time::since_start(Duration::from_millis(at));
        let checks = PodChecks { findings: findings.to_vec(), ..PodChecks::default() };
        let (news, wakes) = pods.checked(&checks, time(at));
        let words = |line: &Line| match line {
            Line::Begun(finding) => format!("{}: {}", finding.container, finding.message),
            Line::Ended(finding) => format!("{}: end", finding.container),
        };
        assert_eq!(news.iter().map(words).collect::<Vec<_>>(), expected);
        assert_eq!(wakes, wake_at.map(time));
    }

    #[test]
    fn a_problem_that_lasts_is_logged_once_and_so_is_its_end() {
        let mut pods = Pods::default();
        let (a, b) = (finding("a", "x"), finding("b", "x"));
        check(&mut pods, 0, std::slice::from_ref(&a), &[], Some(300));
        check(&mut pods, 200, &[a.clone(), b.clone()], &[], Some(300));
        check(&mut pods, 300, &[a.clone(), b.clone()], &["a: x"], Some(500));
        // One that passes at once is not.
        check(&mut pods, 400, std::slice::from_ref(&a), &[], None);
        check(&mut pods, 900, std::slice::from_ref(&a), &[], None);
        check(&mut pods, 950, &[], &["a: end"], None);
        check(&mut pods, 960, &[], &[], None);
    }

    #[test]
    fn what_changes_is_logged_again() {
        let mut pods = Pods::default();
        check(&mut pods, 0, &[finding("a", "x")], &[], Some(300));
        check(&mut pods, 300, &[finding("a", "x")], &["a: x"], None);
        check(&mut pods, 400, &[finding("a", "y")], &[], Some(700));
        check(&mut pods, 700, &[finding("a", "y")], &["a: y"], None);
        check(&mut pods, 800, &[finding("a", "z")], &[], Some(1_100));
        check(&mut pods, 900, &[], &["a: end"], None);
    }
}
