//! The report of the node: what stands in it follows from the state, after each turn of the loop.
//!
//! Invariants: nothing waits for it, and it changes nothing of what the loop does. When the agent ends, what
//! is under way is dropped, and nothing is written.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use futures::future::LocalBoxFuture;
use profiles::check::PodFinding;
use profiles::platform::Platform;
use profiles::report::{Agent, Answer, Circumstances, Request, Writing};
use profiles::state::State;
use profiles::time::Time;
use profiles::writing::Next;

/// The longest that one agent waits longer than others until it looks at its report again, in seconds.
const JITTER: u64 = 60;

/// Where reports go, and what they say that the loop does not know.
pub(crate) struct Outlet {
    /// Who reports.
    pub(crate) agent: Agent,
    /// What the node is.
    pub(crate) platform: Platform,
    /// Asks the API server.
    pub(crate) ask: Box<dyn Fn(Request) -> LocalBoxFuture<'static, Answer>>,
}

/// The report, and the request that is under way.
pub(super) struct Reports {
    outlet: Outlet,
    writing: Writing,
    under_way: Option<LocalBoxFuture<'static, Answer>>,
}

impl Reports {
    /// Nothing was asked yet.
    pub(super) fn new(outlet: Outlet) -> Self {
        let jitter = RandomState::new().hash_one(()) % (JITTER + 1);
        Self { outlet, writing: Writing::new(Duration::from_secs(jitter)), under_way: None }
    }

    /// Asks what is to be asked at `now`, on whose node this is wrong with pods, of an agent that is not
    /// ready for these reasons. Returns when to come here again, if nothing happens before.
    pub(super) fn turn(
        &mut self,
        state: &State,
        findings: &[PodFinding],
        unready: impl FnOnce() -> Vec<String>,
        now: Time,
    ) -> Option<Time> {
        let Self { outlet: Outlet { agent, platform, ask }, writing, under_way } = self;
        let report = || {
            let clock = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
            let (platform, unready) = (*platform, unready());
            state.report(now, &Circumstances { agent, platform, unready: &unready, findings, clock: &clock })
        };
        match writing.next(|before| Some(report()?.draft(before.map(Box::as_ref))), now) {
            Next::Ask(request) => {
                *under_way = Some(ask(request));
                None
            }
            Next::Wait(later) => later,
        }
    }

    /// The answer to what is under way, if anything is. To be taken with [`Self::take`].
    pub(super) async fn answer(&mut self) -> Option<Answer> {
        let answer = self.under_way.as_mut()?.await;
        self.under_way = None;
        Some(answer)
    }

    /// Takes the answer that came at `now`.
    pub(super) fn take(&mut self, answer: Answer, now: Time) {
        self.writing.answered(answer, now);
    }
}
