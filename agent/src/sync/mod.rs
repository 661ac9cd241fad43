//! The loop: events in, steps out.
//!
//! Invariants: there is one of it, on one thread, so steps on the disk and their outcomes can't interleave.
//! The disk never waits for the API server: a write to the Node is a stream like any other, whose events come
//! when they come, and so is a write of an Event. A scan is made when the disk settles after a change, and
//! now and then; what the loop writes itself leads to one more, which finds all right. Nothing is decided
//! here; that is the business of [`profiles::state`] and [`profiles::plan`].

pub(crate) mod announce;
mod journal;
pub(crate) mod policies;
pub(crate) mod report;
pub(crate) mod rescan;
#[cfg(test)]
mod tests;

use std::future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::LocalBoxFuture;
use futures::stream::{LocalBoxStream, SelectAll};
use futures::{FutureExt, Stream, StreamExt, stream};
use profiles::plan::{Compile, Keep, NodeWrite, Plan};
use profiles::reference::Reference;
use profiles::report::Answer;
use profiles::saying::{Outcome, Write};
use profiles::sight::{Looks, Sights};
use profiles::state::{Config, Event, State};
use profiles::time::Time;
use tokio::time::Instant;

use crate::host::{Care, Host, Installed};
use crate::observe::status::Status;
use announce::Announcer;
use journal::Journal;
use policies::{Answered, Policies};
use report::{Outlet, Reports};

/// The loop with all it works on. `W` starts a write to the Node, whose events come when it has ended.
pub(crate) struct SyncLoop<H, W> {
    host: H,
    /// None where the node has no AppArmor.
    policies: Option<Policies>,
    state: State,
    journal: Journal,
    events: SelectAll<LocalBoxStream<'static, Event>>,
    /// Tells when the disk, or the kernel's policy, is to be looked at.
    changes: LocalBoxStream<'static, ()>,
    write_node: W,
    /// None where there is nobody to be told of pods.
    announcer: Option<Announcer>,
    /// None where nobody is to be told.
    reports: Option<Reports>,
    status: Arc<Status>,
    started: Instant,
}

impl<H, W> SyncLoop<H, W>
where
    H: Host,
    W: Fn(NodeWrite) -> LocalBoxFuture<'static, Vec<Event>>,
{
    /// Connects the parts. Nothing happens yet.
    pub(crate) fn new(
        host: H,
        policies: Option<Policies>,
        rules: Config,
        events: Vec<LocalBoxStream<'static, Event>>,
        changes: impl Stream<Item = ()> + 'static,
        write_node: W,
        status: Arc<Status>,
    ) -> Self {
        Self {
            host,
            policies,
            journal: Journal::new(rules.home.clone(), status.metrics.clone()),
            state: State::new(rules),
            events: stream::select_all(events),
            changes: rescan::settled(changes).boxed_local(),
            write_node,
            announcer: None,
            reports: None,
            status,
            started: Instant::now(),
        }
    }

    /// Has `announcer` say what is wrong with pods.
    pub(crate) fn announcing(self, announcer: Option<Announcer>) -> Self {
        Self { announcer, ..self }
    }

    /// The same, with a report of the node that goes to `outlet`.
    pub(crate) fn reporting_to(self, outlet: Option<Outlet>) -> Self {
        Self { reports: outlet.map(Reports::new), ..self }
    }

    /// Runs until `stop` completes. Stopping changes nothing on the node, whatever is under way.
    ///
    /// # Errors
    /// The disk is out of this process's reach.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        self.run_until(|_, _| false, stop).await.map(drop)
    }

    /// Runs until all is done that can be done now, or `stop` completes. Returns whether all that is asked
    /// for is served then, or none if it was stopped before.
    ///
    /// # Errors
    /// The disk is out of this process's reach.
    pub(crate) async fn run_once(mut self, stop: impl Future<Output = ()>) -> Result<Option<bool>> {
        let is_done = self.run_until(State::is_settled, stop).await?;
        Ok(is_done.then(|| {
            let unserved = self.state.unserved();
            Journal::ended(&unserved);
            unserved.is_empty()
        }))
    }

    /// Runs until `is_done`, or `stop` completes. Returns whether it was done.
    async fn run_until(
        &mut self,
        is_done: fn(&State, Time) -> bool,
        stop: impl Future<Output = ()>,
    ) -> Result<bool> {
        let mut stop = std::pin::pin!(stop);
        let mut rescan_at = self.scan(Care::Read)?;
        loop {
            let acts_at = self.act();
            if let Some(policies) = &mut self.policies {
                policies.forget(|text| self.state.has_text(text));
            }
            self.journal.acted(&self.state, self.now());
            self.status.update(&self.state, self.now());
            let speaks_at = self.speak();
            if is_done(&self.state, self.now()) {
                return Ok(true);
            }
            let wake_at = acts_at.into_iter().chain(speaks_at).min();
            tokio::select! {
                () = &mut stop => return Ok(false),
                Some(event) = self.events.next() => self.take_all_ready(event),
                Some(answered) = next_answer(&mut self.policies) => self.take_answer(answered),
                Some((write, outcome)) = announce::next_outcome(&mut self.announcer) => self.said(&write, outcome),
                Some(()) = self.changes.next() => {
                    rescan_at = rescan_at.min(self.scan(Care::Glance)?);
                }
                () = tokio::time::sleep_until(rescan_at) => rescan_at = self.scan(Care::Read)?,
                Some(answer) = next_report_answer(&mut self.reports) => self.take_report_answer(answer),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Looks at the disk and the kernel. Returns when to do so again, if nobody tells of a change before.
    fn scan(&mut self, care: Care) -> Result<Instant> {
        let found = self.host.scan(care)?;
        self.take(Event::Scanned(found));
        if let Some(policies) = &mut self.policies {
            let found = policies.scan(care)?;
            self.take(found);
        }
        Ok(Instant::now() + rescan::pause(self.host.is_watching()))
    }

    /// Takes `event` and all others that need no waiting, so that they share one plan.
    fn take_all_ready(&mut self, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next {
            self.take(event);
            next = self.events.next().now_or_never().flatten();
        }
    }

    fn take(&mut self, event: Event) {
        self.journal.note(&event);
        let now = self.now();
        self.state.apply(event, now);
    }

    /// Does all that can be done now. Returns when there is more to do, if nothing happens before.
    fn act(&mut self) -> Option<Instant> {
        loop {
            let mut plan = self.state.plan(self.now());
            let is_compiled = self.start_compiling(std::mem::take(&mut plan.compile));
            let is_seen = self.look(&plan);
            if !is_compiled && !is_seen && !plan.has_disk_steps() {
                let wake_at = plan.wake_at;
                self.start_write(plan.node_write());
                return self.instant(wake_at);
            }
            self.act_on_disk(plan);
        }
    }

    fn act_on_disk(&mut self, plan: Plan) {
        for (reference, outcome) in self.host.install(plan.install) {
            self.journal.installed(&reference, &outcome, self.latency(&reference));
            self.take(match outcome {
                Ok(Installed::Written(digest) | Installed::Adopted(digest)) => {
                    Event::Installed { reference, digest }
                }
                Ok(Installed::Foreign(_)) => Event::Foreign(reference),
                Err(_) => Event::InstallFailed { is_owned: self.host.owns(&reference), reference },
            });
        }
        for Keep { reference, digest } in plan.keep {
            self.take(match self.host.content(&reference, digest) {
                Some(document) => Event::Kept { reference, document },
                None => Event::KeepFailed(reference),
            });
        }
        for (reference, outcome) in self.host.remove(plan.remove) {
            self.journal.removed(&reference, &outcome);
            self.take(match outcome {
                Ok(()) => Event::Removed(reference),
                Err(_) => Event::RemoveFailed(reference),
            });
        }
        if let Some(policies) = &mut self.policies {
            let (loaded, again) =
                if plan.load.is_empty() { (Vec::new(), Vec::new()) } else { policies.load(plan.load) };
            let unloaded = if plan.unload.is_empty() {
                Vec::new()
            } else {
                policies.unload(plan.unload, &mut self.journal)
            };
            for (name, outcome, event) in loaded {
                let latency = self.state.policy_asked_at(&name).map(|asked_at| self.since(asked_at));
                self.journal.loaded(&name, &outcome, latency);
                self.take(event);
            }
            for event in again.into_iter().chain(unloaded) {
                self.take(event);
            }
        }
    }

    /// Looks where `plan` says. Returns whether it says anything.
    fn look(&mut self, plan: &Plan) -> bool {
        let Plan { look, inspect, .. } = plan;
        let is_look = *look != Looks::default();
        if is_look {
            let files = self.host.look(&look.files);
            let policies = self.policies.as_ref().map(|policies| policies.look(&look.policies));
            self.take(Event::Looked(Sights { files, policies: policies.unwrap_or_default() }));
        }
        if !inspect.is_empty() {
            let seen = self.host.inspect(inspect);
            self.take(Event::Inspected(seen));
        }
        is_look || !inspect.is_empty()
    }

    /// Checks the node's pods, once for all that came together, says what is wrong with them, and reports.
    /// Returns when there may be more to say, if nothing happens before.
    fn speak(&mut self) -> Option<Instant> {
        let now = self.now();
        let checks = self.state.check_pods(now);
        let logs_at = self.journal.checked(&checks, now);
        let announcer = self.announcer.as_mut();
        let writes_at = announcer.and_then(|announcer| announcer.checked(&self.state, &checks, now));
        let unready = || self.status.reasons();
        let reports = self.reports.as_mut();
        let reports_at =
            reports.and_then(|reports| reports.turn(&self.state, &checks.findings, unready, now));
        self.instant(logs_at.into_iter().chain(writes_at).chain(reports_at).min())
    }

    fn said(&mut self, write: &Write, outcome: Outcome) {
        self.journal.said(outcome);
        let now = self.now();
        if let Some(announcer) = &mut self.announcer {
            announcer.written(write, outcome, now);
        }
    }

    /// Starts to compile texts. Returns whether something is known of any of them already.
    fn start_compiling(&mut self, texts: Vec<Compile>) -> bool {
        let mut is_news = false;
        for text in texts {
            self.take(Event::Compiling(text.text));
            let Some(policies) = &mut self.policies else { continue };
            if let Some(event) = policies.compile(text, &mut self.journal) {
                self.take(event);
                is_news = true;
            }
        }
        is_news
    }

    fn take_answer(&mut self, answered: Answered) {
        let Some(policies) = &mut self.policies else { return };
        let event = policies.take(answered, &mut self.journal);
        self.take(event);
    }

    /// For how long a content of `reference` was asked for that has never been on disk.
    fn latency(&self, reference: &Reference) -> Option<Duration> {
        self.state.asked_at(reference).map(|asked_at| self.since(asked_at))
    }

    fn since(&self, at: Time) -> Duration {
        self.now().elapsed().saturating_sub(at.elapsed())
    }

    fn start_write(&mut self, write: Option<NodeWrite>) {
        let Some(write) = write else { return };
        let outcome = (self.write_node)(write.clone());
        self.events.push(stream::once(outcome).flat_map(stream::iter).boxed_local());
        self.take(match write {
            NodeWrite::Labels(change) => Event::LabelsSent(change),
            NodeWrite::Untaint(_) => Event::UntaintSent,
        });
    }

    fn instant(&self, at: Option<Time>) -> Option<Instant> {
        at.and_then(|at| self.started.checked_add(at.elapsed()))
    }

    fn take_report_answer(&mut self, answer: Answer) {
        let now = self.now();
        if let Some(reports) = &mut self.reports {
            reports.take(answer, now);
        }
    }

    fn now(&self) -> Time {
        Time::since_start(self.started.elapsed())
    }
}

/// The next text that is back from the compiler, if one is out.
async fn next_answer(policies: &mut Option<Policies>) -> Option<Answered> {
    policies.as_mut()?.next().await
}

/// The answer to what is asked about the report, if anything is.
async fn next_report_answer(reports: &mut Option<Reports>) -> Option<Answer> {
    reports.as_mut()?.answer().await
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => future::pending().await,
    }
}
