//! When the startup taint is taken off the Node.
//!
//! Invariant: without a taint there is nothing to do. With one, nothing is done while the Node lacks anything
//! that its bundles ask for and that may still come, but for so long only.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::plan::Plan;
use crate::state::State;
use crate::summary::Wait;
use crate::time::Time;

/// How long the taint may stand. What is not there by then, nobody knows when it comes; a node without pods
/// serves nobody.
const PATIENCE: Duration = Duration::from_mins(2);

/// Taking the startup taint off the Node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Untaint {
    /// Where it stands in the Node's list of taints.
    pub at: BTreeSet<usize>,
    /// What the node still lacks: the taint goes nevertheless, as it has stood for too long.
    pub lacks: Vec<Wait>,
}

impl State {
    pub(super) fn plan_untaint(&self, now: Time, plan: &mut Plan) {
        let Some((at, since)) = self.taint.standing() else { return };
        if plan.labels.is_some() || self.is_node_written() {
            return;
        }
        let lacks = self.lacks(now);
        let latest = since + PATIENCE;
        let not_before = Some(latest).filter(|latest| !lacks.is_empty() && *latest > now);
        match not_before.or(self.taint.pace.blocked_until(now)) {
            Some(later) => plan.wake(later),
            None => plan.untaint = Some(Untaint { at: at.clone(), lacks }),
        }
    }

    /// Whether the startup taint stands, and is to be taken away as soon as that is possible.
    pub(super) fn is_taint_going(&self, now: Time) -> bool {
        let standing = self.taint.standing();
        standing.is_some_and(|(_, since)| since + PATIENCE <= now || self.lacks(now).is_empty())
    }
}
