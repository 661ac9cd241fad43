//! The compiler's side of the socket.
//!
//! Invariants: [`MOST`] connections are held at most, each for [`PATIENCE`] until its request is read and again
//! while its answer is taken; others wait in the kernel. Texts are compiled in the order in which they come, so
//! many at a time as there are processors. Whoever hangs up is worked for no longer.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::Toolchain;
use super::child::{self, Cost};
use super::protocol::{read_request, write_reply};

/// How many connections are held. Each costs some MiB at most, for its text and what becomes of it.
const MOST: usize = 32;
/// How long a client may take to send its text, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when no connection can be accepted, for want of file descriptors or memory.
const PAUSE: Duration = Duration::from_secs(1);

/// What compiles.
pub(crate) struct Server {
    toolchain: Toolchain,
    cost: Cost,
    turns: Semaphore,
}

/// A listening socket, whose name is taken away with it.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`. A socket that is there is replaced: of those who share the directory, only a server
    /// makes one, and there is only one server.
    ///
    /// # Errors
    /// The directory can't be written, or something else is at `path`.
    pub(crate) fn listen(path: &Path) -> Result<Self> {
        let taken = fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket());
        if taken {
            bail!(
                "listening on {}: what is there is no socket; choose another path (--socket)",
                path.display()
            );
        }
        // A client that finds the socket may use it: it gets its name last.
        let draft = path.with_extension("new");
        let listener = match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(&draft),
        };
        let listener = listener.and_then(|listener| {
            // unix(7): to connect takes the permission to write. The agent is another user, with the
            // capabilities of none. Who else could come here is kept out by the directory: only the two
            // containers, and the node's root, have it.
            fs::set_permissions(&draft, Permissions::from_mode(0o666))?;
            fs::rename(&draft, path)?;
            Ok(listener)
        });
        let listener = listener.with_context(|| {
            format!(
                "listening on {}; is its directory there, and may this user write to it? (--socket chooses another)",
                path.display()
            )
        })?;
        Ok(Self { listener, path: path.to_owned() })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // There is nobody to tell, and the next server replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Server {
    /// A server that compiles `at_once` texts at a time.
    pub(crate) fn new(toolchain: Toolchain, cost: Cost, at_once: usize) -> Arc<Self> {
        Arc::new(Self { toolchain, cost, turns: Semaphore::new(at_once) })
    }

    /// Answers for ever.
    pub(crate) async fn serve(self: Arc<Self>, socket: &Socket) {
        let seats = Arc::new(Semaphore::new(MOST));
        loop {
            let seat = seats.clone().acquire_owned().await;
            match socket.listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        server.talk(stream).await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    warn!(%error, "A connection can't be accepted; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Answers one request. If that fails, it is the client that has to know.
    async fn talk(&self, mut stream: UnixStream) {
        let request = match timeout(PATIENCE, read_request(&mut stream)).await {
            Ok(Ok(request)) => request,
            Ok(Err(error)) => return debug!(%error, "No request"),
            Err(_) => return debug!("No request in time"),
        };
        let (mut reading, mut writing) = stream.split();
        let gone = hang_up(&mut reading);
        tokio::pin!(gone);
        let turn = tokio::select! {
            turn = self.turns.acquire() => turn,
            () = &mut gone => return debug!("The client hung up before its turn"),
        };
        let Some(reply) = child::run(&self.toolchain, self.cost, &request, gone).await else {
            return debug!("The client hung up");
        };
        drop(turn);
        match &reply {
            Ok(answer) => debug!(kind = answer.kind(), text = request.text.len(), "Answered"),
            Err(reason) => warn!(%reason, "Compilation failed for a reason other than the text"),
        }
        match timeout(PATIENCE, write_reply(&mut writing, &reply)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "The client did not take the answer"),
            Err(_) => debug!("The client did not take the answer in time"),
        }
    }
}

/// Completes when the client has closed its end, or says what it has no business to say.
async fn hang_up(from: &mut (impl AsyncRead + Unpin)) {
    // Whatever comes, it is the end.
    let _ = from.read_u8().await;
}
