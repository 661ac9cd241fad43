//! Tells the person who waits what is being done, and how long it has taken so far.

use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How often a step that goes on says so.
const TICK: Duration = Duration::from_secs(20);

/// Runs `work` under the heading `what`; when it takes long, says how long every 20 seconds.
///
/// # Errors
/// Those of `work`.
pub fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let (done, waiting) = mpsc::channel::<()>();
        scope.spawn(move || {
            while let Err(mpsc::RecvTimeoutError::Timeout) = waiting.recv_timeout(TICK) {
                eprintln!("    … {} s", start.elapsed().as_secs());
            }
        });
        let result = work();
        drop(done);
        if result.is_ok() && start.elapsed() > Duration::from_secs(2) {
            eprintln!("    done in {:.0} s", start.elapsed().as_secs_f64());
        }
        result
    })
}
