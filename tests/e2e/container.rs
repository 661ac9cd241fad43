//! What the containers of Pavise may do, as the kernels of their nodes say: no more than the manifests ask
//! for, and no more than they need.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::SYSTEM;
use testbed::{GUEST_NODE, HOST_NODE, command};

use crate::Test;
use crate::steps::PATIENCE;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("each_container_of_pavise_has_the_rights_that_it_needs_and_no_more", the_rights_are_the_least),
    ("every_compiler_is_as_confined_as_it_is_to_be", the_compilers_are_confined),
];

/// `CAP_MAC_ADMIN` (include/uapi/linux/capability.h), as a set.
const MAC_ADMIN: u64 = 1 << 33;

/// What a process of Pavise is to have.
struct Expected {
    /// The word after `pavise`.
    command: &'static str,
    /// The nodes that have one.
    nodes: &'static [&'static str],
    /// User and group.
    id: u32,
    capabilities: u64,
    /// How many filters of system calls are in force at least: that of the runtime, and its own.
    filters: u32,
    /// In a kernel that has AppArmor.
    profile: &'static str,
    /// Where something is mounted that is not the runtime's own. What is read-only is so with all that is
    /// mounted below it.
    mounts: &'static [(&'static str, Access)],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Access {
    ReadOnly,
    Writable,
}

use Access::{ReadOnly, Writable};

const EXPECTED: &[Expected] = &[
    Expected {
        command: "agent",
        nodes: &[HOST_NODE, GUEST_NODE],
        id: 0,
        capabilities: MAC_ADMIN,
        filters: 1,
        profile: "unconfined",
        mounts: &[
            ("/host/proc", ReadOnly),
            ("/run/pavise", ReadOnly),
            ("/sys/kernel/security", Writable),
            ("/var/lib/kubelet/seccomp", Writable),
            ("/var/lib/pavise", Writable),
            ("/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly),
        ],
    },
    // No token, and no directory of the node.
    Expected {
        command: "compiler",
        nodes: &[HOST_NODE, GUEST_NODE],
        id: 65534,
        capabilities: 0,
        filters: 2,
        profile: "cri-containerd.apparmor.d (enforce)",
        mounts: &[("/run/pavise", Writable)],
    },
    Expected {
        command: "catalog",
        nodes: &[HOST_NODE],
        id: 65534,
        capabilities: 0,
        filters: 1,
        profile: "cri-containerd.apparmor.d (enforce)",
        mounts: &[("/run/pavise", Writable), ("/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly)],
    },
];

/// The pods of Pavise: two agents and the catalog. One that a test before this had started anew goes first.
fn pods(cluster: &Cluster) -> anyhow::Result<Vec<Value>> {
    wait_for("no pod of Pavise to be on its way out", PATIENCE, || {
        let mut pods = cluster.kubectl().get(&["pods", "-n", SYSTEM])?;
        let pods: Vec<Value> = pods["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
        Ok((pods.len() == 3).then_some(pods))
    })
}

fn the_rights_are_the_least(cluster: &Cluster) -> anyhow::Result<()> {
    pods(cluster)?;
    for expected in EXPECTED {
        for node in expected.nodes {
            let processes = processes(cluster, node, expected.command)?;
            ensure!(!processes.is_empty(), "there is no pavise {} on {node}", expected.command);
            for process in &processes {
                expected
                    .check(process, *node == GUEST_NODE)
                    .with_context(|| format!("of pavise {} on {node}: {process:#?}", expected.command))?;
            }
        }
    }
    // The host's node has two: the agent's, and the catalog's.
    ensure!(processes(cluster, HOST_NODE, "compiler")?.len() == 2, "a compiler was not looked at");
    Ok(())
}

impl Expected {
    fn check(&self, process: &Process, has_apparmor: bool) -> anyhow::Result<()> {
        // Real, effective, saved and file system's.
        let ids = vec![self.id.to_string(); 4];
        for key in ["Uid", "Gid"] {
            ensure!(process.words(key)? == ids, "{key} is not {}", self.id);
        }
        for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let set = u64::from_str_radix(process.word(key)?, 16).context(key)?;
            // No program of the image inherits any.
            let expected = if matches!(key, "CapInh" | "CapAmb") { 0 } else { self.capabilities };
            ensure!(set == expected, "{key} is {set:x} and not {expected:x}");
        }
        ensure!(process.word("NoNewPrivs")? == "1", "it can get new privileges");
        ensure!(process.word("Seccomp")? == "2", "no filter is in force");
        let filters: u32 = process.word("Seccomp_filters")?.parse().context("Seccomp_filters")?;
        ensure!(filters >= self.filters, "there are {filters} filters");
        let numbers = process.words("NSpid")?;
        ensure!(numbers.last() == Some(&"1"), "it is in the pid namespace of others: {numbers:?}");
        if has_apparmor {
            ensure!(process.profile == self.profile, "it runs under {:?}", process.profile);
        }
        ensure!(process.mounts.get("/") == Some(&ReadOnly), "it can write its root");
        let foreign: Vec<(&str, Access)> =
            process.mounts.iter().map(|(path, access)| (path.as_str(), *access)).collect();
        let is_below = |path: &str, directory: &str| {
            path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for (path, access) in &foreign {
            let of = self.mounts.iter().find(|(directory, _)| is_below(path, directory));
            match of {
                Some((directory, ReadOnly)) => {
                    ensure!(*access == ReadOnly, "{path} in {directory} is writable");
                }
                Some((_, Writable)) => {}
                None => ensure!(is_of_the_runtime(path), "{path} is mounted"),
            }
        }
        for (path, access) in self.mounts {
            ensure!(foreign.contains(&(path, *access)), "{path} is not mounted as {access:?}");
        }
        Ok(())
    }
}

/// Whether the runtime, or the kubelet, mounts something there in every container.
fn is_of_the_runtime(path: &str) -> bool {
    let own = ["/", "/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
    let below = ["/dev/", "/proc/", "/sys/fs/cgroup", "/sys/firmware", "/sys/devices/"];
    own.contains(&path) || below.iter().any(|prefix| path.starts_with(prefix))
}

/// A process, by what `/proc/<pid>` says of it.
#[derive(Debug)]
struct Process {
    status: BTreeMap<String, String>,
    /// Empty where the kernel has no AppArmor.
    profile: String,
    mounts: BTreeMap<String, Access>,
}

impl Process {
    fn words(&self, key: &str) -> anyhow::Result<Vec<&str>> {
        let value = self.status.get(key).with_context(|| format!("its status has no {key}"))?;
        Ok(value.split_whitespace().collect())
    }

    fn word(&self, key: &str) -> anyhow::Result<&str> {
        self.words(key)?.first().copied().with_context(|| format!("{key} is empty"))
    }
}

/// What separates the parts of what [`LOOK`] prints.
const PART: &str = "=-=-=";

/// Prints of each process of `pavise COMMAND`: its cgroup, status, AppArmor profile, and mounts.
const LOOK: &str = r#"for d in /proc/[0-9]*; do
  case "$(tr '\0' ' ' < $d/cmdline 2>/dev/null)" in
    */pavise\ COMMAND*) for f in cgroup status attr/current mountinfo; do echo PART; cat $d/$f 2>/dev/null; done;;
  esac
done; true"#;

/// The processes of `pavise <command>` in pods of `node`.
fn processes(cluster: &Cluster, node: &str, command: &str) -> anyhow::Result<Vec<Process>> {
    let look = LOOK.replace("COMMAND", command).replace("PART", PART);
    let (said, cgroup) = if node == GUEST_NODE {
        (cluster.guest()?.run(&["sh", "-c", &look])?, "kubepods".to_owned())
    } else {
        // Other clusters of this machine may have some, too.
        (command::output(Command::new("sh").args(["-c", &look]))?, cluster.layout().cgroup())
    };
    let parts: Vec<&str> = said.split(&format!("{PART}\n")).skip(1).collect();
    let ours = parts.chunks_exact(4).filter(|process| process[0].contains(&cgroup));
    ours.map(|process| {
        let status = process[1].lines().filter_map(|line| line.split_once(':'));
        Ok(Process {
            status: status.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect(),
            profile: process[2].trim().to_owned(),
            mounts: process[3].lines().map(mount).collect::<anyhow::Result<_>>()?,
        })
    })
    .collect()
}

/// Reads a line of mountinfo (proc(5)): where it is mounted, and how.
fn mount(line: &str) -> anyhow::Result<(String, Access)> {
    let mut words = line.split(' ').skip(4);
    let (path, options) = words.next().zip(words.next()).with_context(|| format!("no mount: {line}"))?;
    let is_read_only = options.split(',').any(|option| option == "ro");
    Ok((path.to_owned(), if is_read_only { ReadOnly } else { Writable }))
}

/// What a compiler could not do to itself, it says as a warning before it says that it started.
fn the_compilers_are_confined(cluster: &Cluster) -> anyhow::Result<()> {
    for pod in pods(cluster)? {
        let name = pod["metadata"]["name"].as_str().context("a pod has no name")?;
        let log = cluster.kubectl().run(&["logs", "-n", SYSTEM, name, "-c", "compiler", "--tail=-1"])?;
        let start: Vec<&str> = log.lines().take_while(|line| !line.contains("Compiler started")).collect();
        ensure!(
            start.len() < log.lines().count(),
            "the compiler of {name} does not say that it started: {log}"
        );
        // Whether this machine has Landlock is its own business. The guest has it.
        let is_excused = |line: &&str| pod["spec"]["nodeName"] == HOST_NODE && line.contains("Landlock");
        let warnings: Vec<&&str> =
            start.iter().filter(|line| line.contains("WARN") && !is_excused(line)).collect();
        ensure!(warnings.is_empty(), "the compiler of {name} warns: {warnings:?}");
    }
    Ok(())
}
