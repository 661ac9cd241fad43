//! The cluster's own kubectl, run as a user runs it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::command;

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(100);

/// kubectl with the credentials it is to use.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    /// Where it keeps what it has learnt of the API server.
    home: PathBuf,
    credentials: Vec<String>,
}

impl Kubectl {
    /// kubectl with the identity of a kubeconfig.
    #[must_use]
    pub fn new(program: PathBuf, kubeconfig: &Path) -> Self {
        let home = kubeconfig.parent().unwrap_or(Path::new("/")).to_owned();
        Self { program, home, credentials: vec![format!("--kubeconfig={}", kubeconfig.display())] }
    }

    /// kubectl with a bearer token and nothing else, as somebody would use it who found that token.
    #[must_use]
    pub fn with_token(&self, server: &str, authority: &Path, token: &str) -> Self {
        let credentials = vec![
            "--kubeconfig=/dev/null".to_owned(),
            format!("--server={server}"),
            format!("--certificate-authority={}", authority.display()),
            format!("--token={token}"),
        ];
        Self { credentials, ..self.clone() }
    }

    /// A command line to be completed.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOME", &self.home).args(&self.credentials).args(arguments);
        command
    }

    /// Runs kubectl and returns what it prints.
    ///
    /// # Errors
    /// kubectl fails; its words are in the error.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        command::output(&mut self.command(arguments))
    }

    /// Runs kubectl with `-o json` and returns what it prints; `Null` when the object does not exist.
    ///
    /// # Errors
    /// kubectl fails for another reason.
    pub fn get(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[&["get", "-o", "json", "--ignore-not-found"], arguments].concat())?;
        if text.trim().is_empty() {
            Ok(Value::Null)
        } else {
            serde_json::from_str(&text).context("reading kubectl's JSON")
        }
    }

    /// Applies manifests (YAML, or JSON as a `List`).
    ///
    /// # Errors
    /// The API server refuses them.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        let mut apply = self.command(&["apply", "--server-side", "--force-conflicts", "-f", "-"]);
        command::output_with_input(&mut apply, manifests.as_bytes())
    }

    /// Forwards a free local port to `port` of a pod until the answer is dropped.
    ///
    /// # Errors
    /// kubectl does not forward within five seconds.
    pub fn port_forward(&self, namespace: &str, pod: &str, port: u16) -> anyhow::Result<PortForward> {
        let words = [
            "port-forward",
            "-n",
            namespace,
            &format!("pod/{pod}"),
            &format!(":{port}"),
            "--address=127.0.0.1",
        ];
        let mut child = self
            .command(&words)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting kubectl port-forward")?;
        let mut output = BufReader::new(child.stdout.take().context("kubectl has no standard output")?);
        // "Forwarding from 127.0.0.1:40123 -> 5678"
        let mut line = String::new();
        output.read_line(&mut line).context("reading what kubectl port-forward says")?;
        let local = line
            .split(" -> ")
            .next()
            .and_then(|from| from.rsplit(':').next())
            .and_then(|port| port.parse().ok());
        let forward = PortForward { child, local: local.unwrap_or_default(), _output: output };
        if forward.local == 0 {
            bail!("kubectl does not forward to port {port} of the pod {pod}: {}", line.trim());
        }
        Ok(forward)
    }
}

/// A forwarded port.
#[derive(Debug)]
pub struct PortForward {
    child: Child,
    local: u16,
    /// kubectl writes a line for each connection, and ends when nobody holds the other end.
    _output: BufReader<ChildStdout>,
}

impl PortForward {
    /// Asks for `path` by HTTP and returns the body of the answer.
    ///
    /// # Errors
    /// No answer within five seconds, or one that is not 200.
    pub fn http_get(&self, path: &str) -> anyhow::Result<String> {
        let attempt = || format!("GET {path} through the forwarded port {}", self.local);
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.local)).with_context(attempt)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").with_context(attempt)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(attempt)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.to_owned()),
            _ => bail!("{}: {answer:?}", attempt()),
        }
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        // It may have ended by itself, when its pod did.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Repeats `attempt` until it succeeds.
///
/// # Errors
/// It still fails when `patience` is over: this is its last error.
pub fn retry<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(error) if start.elapsed() > patience => {
                return Err(error.context(format!("waited {} s in vain for {what}", patience.as_secs())));
            }
            Err(_) => std::thread::sleep(PAUSE),
            success => return success,
        }
    }
}

/// Repeats `look` until it finds something.
///
/// # Errors
/// `look` fails, or has found nothing when `patience` is over.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > patience {
            bail!("waited {} s in vain for {what}", patience.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
