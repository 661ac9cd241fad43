//! A node with a kernel of its own: containerd and a kubelet in a virtual machine, whose root is this machine's.
//!
//! QEMU is a component of the cluster's init, and ends with it. It has user networking only: the guest is a
//! client of this machine's loopback, and of its ports only the kubelet's is reachable, under the same number
//! on this machine's loopback.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::programs::{self, Programs, Setting};
use super::{Joining, Node};
use crate::guest::{CONTROL, Guest};
use crate::init::GUEST;
use crate::supervisor::Component;
use crate::tools::Tools;
use crate::{cache, command};

/// The guest's memory, in MiB; also its disk. QEMU takes it from the machine as it is used.
const MEMORY: &str = "3072";

pub(super) fn machine_name(node: &Node) -> String {
    format!("qemu-{}", node.name)
}

pub(super) fn prepare(node: &Node, joining: &Joining<'_>) -> anyhow::Result<Programs> {
    // QEMU hands on to the guest's own address.
    programs::prepare(node, joining, &Setting { address: "0.0.0.0", cgroup_root: "/".to_owned() })
}

/// Says how to run the machine.
pub(super) fn machine(node: &Node, joining: &Joining<'_>) -> anyhow::Result<Component> {
    let program = joining.layout.guest_program();
    fs::copy("/proc/self/exe", &program).with_context(|| format!("writing {}", program.display()))?;
    Ok(Component {
        name: machine_name(node),
        program: command::find_program("qemu-system-x86_64").context("there is no qemu-system-x86_64")?,
        arguments: arguments(node, joining)?,
    })
}

fn arguments(node: &Node, joining: &Joining<'_>) -> anyhow::Result<Vec<String>> {
    let layout = joining.layout;
    let [port, _] = node.ports;
    let boot = joining.boot.context("there is nothing to boot a guest from")?;
    let state = plain(layout.state(), "PAVISE_TESTBED_DIR")?;
    let cache = cache::directory()?;
    let cache = plain(&cache, "PAVISE_CACHE_DIR")?;
    // What follows -- are the arguments of the first program (bootparam(7)): see `guest/init.sh`.
    let kernel = format!(
        "console=ttyS0 quiet panic=-1 mitigations=off apparmor=1 security=apparmor -- {} {state} {cache} {state}/{} {GUEST} {}",
        node.name,
        layout.guest_program().file_name().unwrap_or_default().display(),
        joining.api_port,
    );
    let file = |path: &Path| path.display().to_string();
    let mut arguments: Vec<String> = [
        // KVM is missing or does not work on many machines that run tests: emulated, it is the same everywhere.
        // The kernel copies memory with single instructions where it believes them to be fast, and QEMU carries
        // those out byte by byte.
        &["-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,erms=off,fsrm=off"][..],
        &["-smp", "2", "-m", MEMORY, "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"],
        // The console becomes QEMU's own log.
        &["-serial", "stdio"],
        &["-kernel", &file(&boot.kernel), "-initrd", &file(&boot.initramfs), "-append", &kernel],
        &["-netdev", &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:{port}")],
        &["-device", "virtio-net-pci,netdev=net,romfile="],
        &["-virtfs", "local,path=/,mount_tag=machine,security_model=none,readonly=on,multidevs=remap"],
        &[
            "-virtfs",
            &format!("local,path={state},mount_tag=state,security_model=none,readonly=on,multidevs=remap"),
        ],
        &["-device", "virtio-serial-pci"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    let socket = layout.guest_socket(&node.name);
    let orders = format!("socket,id={CONTROL},server=on,wait=off,path={}", socket.display());
    let logs = [programs::runtime_name(node), programs::kubelet_name(node)]
        .map(|name| (format!("file,id={name},append=on,path={}", layout.log(&name).display()), name));
    for (device, name) in [(orders, CONTROL.to_owned())].into_iter().chain(logs) {
        let port = format!("virtserialport,chardev={name},name={name}");
        arguments.extend(["-chardev".to_owned(), device, "-device".to_owned(), port]);
    }
    Ok(arguments)
}

/// A path that can stand in QEMU's and the kernel's command lines as it is.
fn plain<'a>(path: &'a Path, variable: &str) -> anyhow::Result<&'a str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b",\"'\\".contains(&byte);
    match path.to_str() {
        Some(text) if text.bytes().all(is_plain) => Ok(text),
        _ => bail!(
            "{} can't be shown to a guest: name a directory in {variable} without spaces, commas and quotes",
            path.display()
        ),
    }
}

/// The guest sees the cache, and so the archive, under the path that it has here.
pub(super) fn import(guest: &Guest, tools: &Tools, archive: &Path) -> anyhow::Result<()> {
    let ctr = tools.program("ctr");
    let archive = archive.to_str().context("an archive's path is not UTF-8")?;
    let ctr = ctr.to_str().context("ctr's path is not UTF-8")?;
    // Emulated, --local takes two thirds of the time.
    guest.run(&[ctr, "--namespace", "k8s.io", "images", "import", "--local", archive]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_would_end_an_option_is_refused() {
        for path in ["/var/lib/pavise-testbed/default", "/home/me/.cache/pavise"] {
            assert!(plain(Path::new(path), "X").is_ok(), "{path} is refused");
        }
        for path in ["/a b", "/a,b", "/a\"b", "/ä"] {
            assert!(plain(Path::new(path), "X").is_err(), "{path} is accepted");
        }
    }
}
