//! The agent's side of the socket.
//!
//! Invariant: whatever the other side does, [`Client::compile`] ends in a limited time, holds a limited number
//! of bytes, and talks to nobody else. An [`Answer`] is a claim: nobody has looked at its blob.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{read_reply, write_request};
use super::{Answer, DEADLINE};
use crate::host::socket::SocketFile;

/// A Unix socket answers at once, or has nobody to answer.
const CONNECT: Duration = Duration::from_secs(2);
/// How long everything may take after that: the server's own deadline comes first.
const PATIENCE: Duration = DEADLINE.saturating_mul(2);
/// So much is told of why the compiler could not, in characters.
const MOST_REASON: usize = 300;

/// What asks the compiler.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    patience: Duration,
}

/// Why there is no answer. None of it is about the text: it can be tried again.
#[derive(Debug, Error)]
pub(crate) enum ClientError {
    /// Nobody listens.
    #[error("connecting to the compiler at {} (does the container `compiler` run? see its log)", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The connection failed, or what came is no answer.
    #[error("asking the compiler (its log, or that of the container before it, may say more)")]
    Exchange(#[source] io::Error),
    /// It did not answer.
    #[error("the compiler did not answer within {}s (see the log of the container `compiler`)", .0.as_secs())]
    Silent(Duration),
    /// It says that it could not.
    #[error("the compiler could not: {0}")]
    Failed(String),
}

impl Client {
    /// For the compiler that listens at `socket`.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self::with(socket, PATIENCE)
    }

    fn with(socket: PathBuf, patience: Duration) -> Self {
        Self { socket, patience }
    }

    /// Has `text` compiled for a kernel with `features` (as in the parser's features files). Of more calls at a
    /// time than [`super::at_once`], some spend their time waiting in the compiler.
    ///
    /// # Errors
    /// There is no answer to this text now. Trying again, later, can help.
    pub(crate) async fn compile(&self, text: &str, features: &str) -> Result<Answer, ClientError> {
        let stream = match timeout(CONNECT, connect(&self.socket)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let stream = stream.map_err(|source| ClientError::Connect { socket: self.socket.clone(), source })?;
        match timeout(self.patience, exchange(stream, text, features)).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(reason))) => Err(ClientError::Failed(reason.chars().take(MOST_REASON).collect())),
            Ok(Err(error)) => Err(ClientError::Exchange(error)),
            Err(_) => Err(ClientError::Silent(self.patience)),
        }
    }
}

/// Connects to a socket in a directory that the compiler can write: links in it lead nowhere.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let socket = SocketFile::find(socket)?;
    UnixStream::connect(socket.path()).await
}

async fn exchange(mut stream: UnixStream, text: &str, features: &str) -> io::Result<super::protocol::Reply> {
    write_request(&mut stream, features, text).await?;
    read_reply(&mut stream).await
}

#[cfg(test)]
mod tests;
