//! The loop that tells pods why they wait for a profile: pods, Nodes and bundles in, Events out.
//!
//! Invariants: one look at the Nodes and one write are under way at most, and nothing waits for either. While
//! no pod waits that selects on labels of ours, no Node is asked for. Nothing is decided here; that is the
//! business of [`profiles::catalog::pending`].

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Result;
use futures::future::{Fuse, FusedFuture, LocalBoxFuture};
use futures::{FutureExt, Stream, StreamExt};
use profiles::catalog::asking::Judged;
use profiles::catalog::outline::Outlines;
use profiles::catalog::pending::Pending;
use profiles::placement::Node;
use profiles::saying::{Outcome, Write};
use profiles::time::Time;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cluster::bundles;
use crate::cluster::pending::Seen;

/// Takes over what is seen of bundles.
pub(crate) fn note_down(outlines: &RefCell<Outlines>, seen: &bundles::Seen<Judged>) {
    let mut outlines = outlines.borrow_mut();
    match seen {
        bundles::Seen::Listed(namespace, judged) => outlines.listed(namespace, judged),
        bundles::Seen::Applied(judged) => outlines.applied(judged),
        bundles::Seen::Deleted(id) => outlines.deleted(id),
    }
}

/// Runs for ever. `outlines` is what is known of bundles; others see to it. `nodes` lists the Nodes, with their
/// labels of these keys. `write` starts a write.
pub(crate) async fn run(
    pods: impl Stream<Item = Seen>,
    outlines: &RefCell<Outlines>,
    nodes: impl Fn(Arc<BTreeSet<String>>) -> LocalBoxFuture<'static, Result<Vec<Node>>>,
    write: impl Fn(Write) -> LocalBoxFuture<'static, Outcome>,
) {
    let mut pods = std::pin::pin!(pods);
    let started = Instant::now();
    let now = || Time::since_start(started.elapsed());
    let mut pending = Pending::default();
    let mut complaint = Complaint::default();
    let (mut looking, mut writing) = (Fuse::terminated(), Fuse::terminated());
    loop {
        let todo = pending.todo(now());
        if todo.look {
            let look = pending.look(outlines.borrow().bundles(), now());
            let found = nodes(look.keys());
            looking = async move { (look, found.await) }.boxed_local().fuse();
        }
        if let Some(next) = todo.write.filter(|_| writing.is_terminated()) {
            let outcome = write(next.clone());
            writing = async move { (next, outcome.await) }.boxed_local().fuse();
        }
        let wake_at = todo.wake_at.and_then(|at| started.checked_add(at.elapsed()));
        tokio::select! {
            Some(seen) = pods.next() => match seen {
                Seen::Listing => pending.listing(),
                Seen::Found(pod) => pending.found(pod),
                Seen::Listed => pending.listed(now()),
                Seen::Applied(pod) => pending.applied(pod, now()),
                Seen::Deleted(id) => pending.deleted(&id),
            },
            (mut look, found) = &mut looking, if !looking.is_terminated() => {
                let nodes = complaint.on(found);
                while !pending.looked(&mut look, nodes.as_deref(), outlines.borrow().bundles(), now()) {
                    // It can take seconds for all pods, and the thread has other loops.
                    tokio::task::yield_now().await;
                }
            }
            (write, outcome) = &mut writing, if !writing.is_terminated() => {
                pending.written(&write, outcome, now());
            }
            () = tokio::time::sleep_until(wake_at.unwrap_or(started)), if wake_at.is_some() => {}
        }
    }
}

/// What the log last said is wrong.
#[derive(Default)]
struct Complaint(Option<String>);

impl Complaint {
    /// What was `found`; that there is nothing is logged once for each reason.
    fn on(&mut self, found: Result<Vec<Node>>) -> Option<Vec<Node>> {
        match found {
            Ok(nodes) => {
                if self.0.take().is_some() {
                    info!("Nodes can be listed again");
                }
                Some(nodes)
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.0.as_ref() != Some(&error) {
                    warn!(
                        error,
                        "Nodes can't be listed, so Events on waiting pods may be out of date; trying again"
                    );
                    self.0 = Some(error);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
