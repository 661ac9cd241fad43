//! One text, one process.
//!
//! Invariants: a process that was started is ended and waited for before [`run`] returns, and it can start no
//! other. It is given nothing but the text, the features, and pipes to answer.

use std::ffi::OsString;
use std::future;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::protocol::{MOST_BLOB, MOST_WORDS, Reply, Request};
use super::{Answer, Limit, Toolchain};
use crate::host::child::Ended;
use crate::host::memfd::{self, Heir};
use crate::host::process::processor_time_of;

/// The exit code of `pavise run-parser` if it could not become a parser, as of env(1) and timeout(1).
pub(crate) const NO_PARSER: i32 = 125;

/// This program, which confines itself before it becomes the parser.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// A process that had less than one part in so many of its time on a processor had to wait for others.
const STARVED: u32 = 8;

/// Words of the parser, and of the C++ library, when they get no memory.
const OUT_OF_MEMORY: &[&str] = &["bad_alloc", "allocate memory", "Memory allocation", "Out of memory"];

/// What one text may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// How long its process may take.
    pub(crate) deadline: Duration,
    /// Address space of its process, in bytes.
    pub(crate) memory: u64,
}

/// Compiles `text` for a kernel with `features`, for a caller that is the one who wants to know.
///
/// # Errors
/// It could not be tried.
pub(crate) async fn compile(
    toolchain: &Toolchain,
    cost: Cost,
    text: &str,
    features: &str,
) -> Result<Answer, String> {
    let request = Request { features: features.into(), text: text.into() };
    run(toolchain, cost, &request, future::pending()).await.unwrap_or_else(|| Err("nobody waits".to_owned()))
}

/// Compiles. None if the client was `gone` before that was done.
pub(super) async fn run(
    toolchain: &Toolchain,
    cost: Cost,
    request: &Request,
    gone: impl Future<Output = ()>,
) -> Option<Reply> {
    let mut child = match start(toolchain, cost, request) {
        Ok(child) => child,
        Err(reason) => return Some(Err(reason)),
    };
    let process = child.id();
    let reply = tokio::select! {
        reply = answer(&mut child) => Some(reply),
        () = gone => None,
        () = tokio::time::sleep(cost.deadline) => Some(too_late(process, cost.deadline)),
    };
    // By its own number, which it can't change. What has ended already can't be ended, and need not be.
    let _ = child.start_kill();
    let waited = child.wait().await;
    reply.map(|reply| waited.map_err(|error| format!("waiting for the parser: {error}")).and(reply))
}

fn start(toolchain: &Toolchain, cost: Cost, request: &Request) -> Result<Child, String> {
    // The parser refuses a comment that no line end follows.
    let end: &[u8] = if request.text.ends_with(b"\n") { b"" } else { b"\n" };
    let input = memfd::with(&[&request.features, &request.text, end], Heir::Nobody);
    let input = input.map_err(|error| error.in_full())?;
    let option = |name: &str, value: &dyn ToString| OsString::from(format!("--{name}={}", value.to_string()));
    Command::new(THIS_PROGRAM)
        .arg("run-parser")
        .arg(option("parent", &std::process::id()))
        .arg(option("features", &request.features.len()))
        .arg(option("memory", &cost.memory))
        // One process can't use more processor time than it has time.
        .arg(option("seconds", &cost.deadline.as_secs().saturating_add(1)))
        .arg("--parser")
        .arg(&toolchain.parser)
        .arg("--includes")
        .arg(&toolchain.includes)
        .env_clear()
        .current_dir("/")
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("starting a process for the parser: {error}"))
}

/// What to answer when `process` has not ended in time. If it had next to nothing of the processors, it is not
/// the text that takes too much.
fn too_late(process: Option<u32>, deadline: Duration) -> Reply {
    match process.and_then(processor_time_of) {
        Some(used) if used < deadline / STARVED => Err(format!(
            "the parser had to wait for a processor for most of {}s; is the node overloaded?",
            deadline.as_secs()
        )),
        Some(_) | None => Ok(Answer::Limit(Limit::Time)),
    }
}

/// Reads what the child has to say, and waits for its end.
async fn answer(child: &mut Child) -> Reply {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("the parser has no pipes".to_owned());
    };
    let failed = |error: io::Error| format!("reading from the parser: {error}");
    let words = async { read_words(stderr).await.map_err(failed) };
    let blob = async {
        let mut blob = Vec::new();
        stdout.take(MOST_BLOB as u64 + 1).read_to_end(&mut blob).await.map_err(failed)?;
        Ok::<_, String>(blob)
    };
    tokio::pin!(words, blob);
    // A policy that is too large is an answer already: nobody is to wait for its last word.
    let (blob, words) = tokio::select! {
        blob = &mut blob => match blob? {
            blob if blob.len() > MOST_BLOB => return Ok(Answer::Limit(Limit::Size)),
            blob => (blob, words.await?),
        },
        words = &mut words => (blob.await?, words?),
    };
    if blob.len() > MOST_BLOB {
        return Ok(Answer::Limit(Limit::Size));
    }
    let status = child.wait().await.map_err(|error| format!("waiting for the parser: {error}"))?;
    reply(status.into(), blob, words)
}

/// The first [`MOST_WORDS`]. What comes after them is read as well, so that it holds up nobody.
async fn read_words(mut stderr: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut words = Vec::new();
    (&mut stderr).take(MOST_WORDS as u64).read_to_end(&mut words).await?;
    tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&words).into_owned())
}

fn reply(ended: Ended, blob: Vec<u8>, stderr: String) -> Reply {
    match ended {
        Ended::Code(0) => Ok(Answer::Compiled { blob, stderr }),
        Ended::Code(NO_PARSER) => Err(stderr),
        Ended::OutOfTime => Ok(Answer::Limit(Limit::Time)),
        Ended::Killed => Err("somebody ended the parser; has the container too little memory?".to_owned()),
        Ended::Code(_) | Ended::Crashed if OUT_OF_MEMORY.iter().any(|words| stderr.contains(words)) => {
            Ok(Answer::Limit(Limit::Memory))
        }
        Ended::Code(_) => Ok(Answer::Refused { stderr }),
        Ended::Crashed => Ok(Answer::Crashed),
    }
}
