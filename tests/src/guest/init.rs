//! The first process of a guest, after `init.sh`: runs its components, and whatever commands it is given, for
//! whoever is at the other end of its virtio ports.
//!
//! Invariant: if it can't go on, the guest ends, and the reason is the last thing on its console.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

use super::{Answer, CONTROL, Order};
use crate::supervisor::Supervisor;

/// Between two looks whether somebody is at the other end.
const PAUSE: Duration = Duration::from_millis(20);
/// This machine's loopback, as QEMU's user network shows it to a guest.
const MACHINE: &str = "10.0.2.2";

/// Serves orders, and ends the guest if it can't.
pub(crate) fn run(api_port: &str) -> anyhow::Result<()> {
    let result = serve(api_port);
    if let Err(error) = &result {
        eprintln!("the guest's first process failed: {error:#}");
        // Powers off (Documentation/admin-guide/sysrq.rst), in a moment. If this process ended, the kernel would
        // panic, and say so much that nobody finds the reason.
        fs::write("/proc/sysrq-trigger", "o").context("powering off")?;
        std::thread::sleep(Duration::from_secs(10));
    }
    result
}

/// Serves orders. `api_port` is the API server's: pods and the kubelet find it on the guest's loopback, as
/// those of the other node do on theirs.
fn serve(api_port: &str) -> anyhow::Result<()> {
    let api_port: u16 = api_port.parse().context("reading the API server's port")?;
    let listener =
        TcpListener::bind(("127.0.0.1", api_port)).context("listening for clients of the API server")?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || forward(&client, api_port));
        }
    });
    let mut ports = open_ports()?;
    let control = ports.remove(CONTROL).context("this guest has no port for orders")?;
    let supervisor = Supervisor::start(move |component| {
        ports.get(component).ok_or(ErrorKind::NotFound.into()).and_then(File::try_clone)
    });
    let answers = Arc::new(Mutex::new(control.try_clone().context("sharing the port for orders")?));
    let mut orders = BufReader::new(control);
    let mut line = Vec::new();
    loop {
        // Nothing comes while nobody is at the other end; then the rest of the line may be still to come.
        if orders.read_until(b'\n', &mut line).context("reading orders")? == 0 {
            std::thread::sleep(PAUSE);
        } else if line.ends_with(b"\n") {
            let order = serde_json::from_slice::<Order>(&line);
            line.clear();
            // What somebody began to say who then went away is no order.
            let Ok(order) = order else { continue };
            let (supervisor, answers) = (Arc::clone(&supervisor), Arc::clone(&answers));
            std::thread::spawn(move || carry_out(&supervisor, &order, &answers));
        }
    }
}

fn carry_out(supervisor: &Supervisor, order: &Order, answers: &Mutex<File>) {
    let result = supervisor.obey(&order.command).map_err(|error| format!("{error:#}"));
    let mut text = serde_json::to_vec(&Answer { id: order.id.clone(), result }).unwrap_or_default();
    text.push(b'\n');
    let mut port = answers.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = port.write_all(&text) {
        eprintln!("answering to {}: {error}", order.command);
    }
}

/// The guest's virtio ports, by their names; a port can be opened once.
fn open_ports() -> anyhow::Result<BTreeMap<String, File>> {
    let mut ports = BTreeMap::new();
    for entry in fs::read_dir("/sys/class/virtio-ports").context("listing this guest's virtio ports")? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).context("reading the name of a port")?;
        let device = PathBuf::from("/dev").join(entry.file_name());
        let port = File::options().read(true).write(true).open(&device);
        ports.insert(name.trim().to_owned(), port.with_context(|| format!("opening {}", device.display()))?);
    }
    Ok(ports)
}

/// Copies both ways until both sides have ended.
fn forward(client: &TcpStream, port: u16) {
    let Ok(server) = TcpStream::connect((MACHINE, port)) else { return };
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        // However one side ends, the other is told so.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| copy(client, &server));
        copy(&server, client);
        // A server that has gone answers no more.
        let _ = client.shutdown(Shutdown::Both);
    });
}
