//! The bundles that are measured with. No two profiles have the same bytes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testbed::pods::bundle;

/// The profile of the Kubernetes seccomp tutorial.
const TUTORIAL: &str = include_str!("../../../manifests/examples/seccomp-tutorial/fine-grained.json");
/// The system calls of 64-bit x86, which are about as many as Docker's default profile names.
const CALLS: &str = include_str!("calls.txt");
/// An `errno` has at most this value (errno(3); the kernel's `MAX_ERRNO`), and none that is 0.
const ERRNO_VALUES: usize = 4095;

/// A ConfigMap to be created, and what is to come of it.
pub(super) struct Bundle {
    pub(super) name: String,
    pub(super) size: Size,
    keys: Vec<String>,
    /// What is sent to the API server.
    pub(super) text: String,
}

/// How large the profiles are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// As in the Kubernetes tutorial: 58 system calls, 1.4 KB.
    Small,
    /// As Docker's default profile: some 360 system calls, a line each, 8 KB.
    Large,
}

impl Bundle {
    /// A bundle of `count` profiles. `first` tells its profiles from those of others.
    pub(super) fn new(name: String, size: Size, first: usize, count: usize) -> Self {
        let profiles: Vec<(String, String)> =
            (0..count).map(|index| (format!("p{index}.json"), profile(size, first + index))).collect();
        let entries: Vec<(&str, &str)> =
            profiles.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        let text = bundle(&name, &entries).to_string();
        Self { name, size, keys: profiles.into_iter().map(|(key, _)| key).collect(), text }
    }

    /// Its files, relative to the kubelet's directory for profiles.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.keys.iter().map(|key| Path::new(&self.name).join(key))
    }

    /// The label that a Node has when all of it is there.
    pub(super) fn label(&self) -> String {
        format!("bundle.pavise.dev/{}", self.name)
    }

    /// The labels of its profiles.
    pub(super) fn profile_labels(&self) -> impl Iterator<Item = String> {
        self.keys.iter().map(|key| format!("seccomp.pavise.dev/{}_{key}", self.name))
    }
}

fn profile(size: Size, number: usize) -> String {
    let mut profile = match size {
        Size::Small => serde_json::from_str(TUTORIAL).unwrap_or_default(),
        Size::Large => json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{"names": CALLS.split_whitespace().collect::<Vec<_>>(), "action": "SCMP_ACT_ALLOW"}],
        }),
    };
    profile["defaultErrnoRet"] = Value::from(1 + number % ERRNO_VALUES);
    format!("{profile:#}")
}
