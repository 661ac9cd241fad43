//! When the disk is looked at again.
//!
//! Invariant: however often it changes, a look is not more often than once in [`QUIET`], and not later than
//! [`LATEST`] after the first change.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

/// How long nothing must change. Whoever replaces a file does so in several steps.
const QUIET: Duration = Duration::from_millis(20);
/// How long it is waited for that.
const LATEST: Duration = Duration::from_millis(200);
/// Time between looks for what nobody tells of.
const PERIOD: Duration = Duration::from_mins(5);
/// The same where changes can't be told of.
const UNWATCHED_PERIOD: Duration = Duration::from_secs(10);

/// How long to wait for the next look, if no change is told of before.
pub(super) fn pause(is_watching: bool) -> Duration {
    if is_watching { PERIOD } else { UNWATCHED_PERIOD }
}

/// `changes`, one for all that come close together.
pub(crate) fn settled(changes: impl Stream<Item = ()> + 'static) -> impl Stream<Item = ()> {
    stream::unfold(changes.boxed_local(), |mut changes| async {
        changes.next().await?;
        let latest = Instant::now() + LATEST;
        loop {
            let quiet = Instant::now() + QUIET;
            tokio::select! {
                () = sleep_until(quiet.min(latest)) => return Some(((), changes)),
                Some(()) = changes.next() => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc::unbounded;

    use super::*;

    /// Claims after how many milliseconds a look comes, if changes come at these.
    async fn check(changes: impl Iterator<Item = u64>, expected: &[u64]) {
        let started = Instant::now();
        let (sender, receiver) = unbounded();
        let tell = async {
            for at in changes {
                sleep_until(started + Duration::from_millis(at)).await;
                sender.unbounded_send(()).unwrap();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        let mut looks = Vec::new();
        let look = settled(receiver).for_each(|()| {
            looks.push(u64::try_from(started.elapsed().as_millis()).unwrap());
            std::future::ready(())
        });
        futures::future::select(Box::pin(look), tell.boxed_local()).await;
        assert_eq!(looks, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_comes_when_it_is_quiet_and_not_too_late() {
        check([0].into_iter(), &[20]).await;
        check([0, 5, 15].into_iter(), &[35]).await;
        check([0, 100].into_iter(), &[20, 120]).await;
        check((0..=300).step_by(10), &[200, 320]).await;
    }
}
