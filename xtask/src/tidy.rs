//! `tidy`: the rules of ARCHITECTURE.md that no compiler enforces. All that is broken is listed at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

mod map;

/// What may be used in one part of the code only: the text that gives it away, the part, and the crate it is
/// looked for in.
const CONFINED: &[(&str, &str, &str)] = &[
    ("k8s_openapi::", "agent/src/cluster", "agent"),
    ("kube::", "agent/src/cluster", "agent"),
    ("nix::", "agent/src/host", "agent"),
    ("notify::", "agent/src/host", "agent"),
    ("procfs::", "agent/src/host", "agent"),
    ("landlock::", "agent/src/host", "agent"),
    ("libseccomp::", "agent/src/host", "agent"),
    ("prometheus_client::", "agent/src/observe", "agent"),
    ("unsafe {", "agent/src/host", "agent"),
];

/// What the crate `profiles` may not do: it decides, on what it is given.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "println!",
    "async fn",
];

/// The one place in `profiles` with a thread: libseccomp gives programs only to a descriptor, which a thread
/// reads.
const WITH_THREAD: &str = "profiles/src/seccomp/export.rs";

/// Crates that do input and output: none of them may be below `profiles`.
const IMPURE_CRATES: &[&str] = &[
    "async-std",
    "hyper",
    "k8s-openapi",
    "kube",
    "kube-client",
    "mio",
    "nix",
    "notify",
    "procfs",
    "rustix",
    "smol",
    "socket2",
    "tokio",
];

/// A file with more lines than this wants to be two.
const LONG: usize = 600;

pub(crate) fn run() -> anyhow::Result<()> {
    let files = rust_files()?;
    let mut problems: Vec<String> =
        files.iter().flat_map(|(path, text)| problems_of_file(path, text)).collect();
    problems.extend(
        crates_below_profiles()?.iter().map(|name| format!("profiles depends on {name}, which does I/O")),
    );
    problems.extend(map::problems(&files, &read("ARCHITECTURE.md")?));
    if !problems.is_empty() {
        bail!("the code does not keep to ARCHITECTURE.md:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

fn problems_of_file(path: &Path, text: &str) -> Vec<String> {
    let shown = path.display();
    let mut problems = Vec::new();
    let mut line_of = |needle: &str, problem: &dyn Fn(usize) -> String| {
        let found = text.lines().position(|line| mentions(line, needle));
        problems.extend(found.map(|index| problem(index + 1)));
    };
    for (needle, home, of) in CONFINED {
        if path.starts_with(of) && !path.starts_with(home) {
            line_of(needle, &|line| format!("{shown}:{line}: {needle} belongs in {home}"));
        }
    }
    if path.starts_with("profiles/src") {
        let is_excepted = |needle: &str| needle == "std::thread" && path == Path::new(WITH_THREAD);
        for needle in IMPURE.iter().filter(|needle| !is_excepted(needle)) {
            line_of(needle, &|line| {
                format!("{shown}:{line}: {needle} in profiles, which does no I/O and is told the time")
            });
        }
    }
    if path.starts_with("agent/src/cluster") {
        for of in ["kube", "k8s_openapi"] {
            let passes_on =
                |line: &str| line.trim_start().starts_with("pub") && mentions(line, &format!("use {of}"));
            let found = text.lines().position(passes_on);
            problems.extend(found.map(|index| format!("{shown}:{}: passes types of {of} on", index + 1)));
        }
    }
    if !text.starts_with("//! ") {
        problems.push(format!("{shown}: does not begin by stating its duty (//! …)"));
    }
    let lines = text.lines().count();
    if lines > LONG {
        problems.push(format!("{shown}: {lines} lines; more than {LONG} want to be two files"));
    }
    if path == Path::new("agent/src/main.rs") && lines > 60 {
        problems.push(format!("{shown}: {lines} lines; at most 60, so that it shows what the program does"));
    }
    problems
}

/// Whether a line of code has `needle`, and not as the end of a longer word (`unix::` is not `nix::`).
fn mentions(line: &str, needle: &str) -> bool {
    let is_whole = |(index, _): (usize, &str)| {
        !line[..index].ends_with(|before: char| before.is_alphanumeric() || before == '_')
    };
    !line.trim_start().starts_with("//") && line.match_indices(needle).any(is_whole)
}

fn crates_below_profiles() -> anyhow::Result<Vec<String>> {
    let tree = [
        "tree",
        "--package",
        "pavise-profiles",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--locked",
        "--format",
        "{p}",
    ];
    let output = Command::new("cargo")
        .args(tree)
        .current_dir(testbed::repository())
        .output()
        .context("running cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let names: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect();
    Ok(names.into_iter().filter(|name| IMPURE_CRATES.contains(&name.as_str())).collect())
}

/// Every Rust file of the project, by its path from the top.
fn rust_files() -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = ["agent", "profiles", "tests", "xtask"].map(PathBuf::from).into();
    while let Some(path) = waiting.pop() {
        let full = testbed::repository().join(&path);
        if full.is_dir() {
            let entries = fs::read_dir(&full).with_context(|| format!("listing {}", full.display()))?;
            waiting.extend(entries.filter_map(|entry| Some(path.join(entry.ok()?.file_name()))));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.insert(
                path.clone(),
                fs::read_to_string(&full).with_context(|| format!("reading {}", full.display()))?,
            );
        }
    }
    Ok(files)
}

fn read(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(testbed::repository().join(path)).with_context(|| format!("reading {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str, expected: &[&str]) {
        let problems = problems_of_file(Path::new(path), text);
        assert_eq!(problems.len(), expected.len(), "{path}: {problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.contains(expected), "{path}: {problem} does not say {expected}");
        }
    }

    #[test]
    fn what_is_out_of_place_is_found() {
        check(
            "agent/src/sync/mod.rs",
            "//! Duty.\nuse kube::Client;\n",
            &["mod.rs:2: kube:: belongs in agent/src/cluster"],
        );
        check("agent/src/cluster/node.rs", "//! Duty.\nuse kube::Client;\n", &[]);
        check(
            "agent/src/cluster/node.rs",
            "//! Duty.\npub(crate) use kube::{Api, Client};\n",
            &["node.rs:2: passes types of kube on"],
        );
        check("agent/src/sync/mod.rs", "//! Duty.\n// not kube::Client\n", &[]);
        check("agent/src/observe/signals.rs", "//! Duty.\nuse tokio::signal::unix::signal;\n", &[]);
        check(
            "profiles/src/state.rs",
            "//! Duty.\nlet now = Instant::now();\n",
            &["Instant::now in profiles"],
        );
        check("profiles/src/seccomp/export.rs", "//! Duty.\nuse std::thread;\n", &[]);
        check("profiles/src/plan.rs", "//! Duty.\nuse std::thread;\n", &["std::thread in profiles"]);
        check("agent/src/sync/mod.rs", "use std::fs;\n", &["does not begin by stating its duty"]);
        check("agent/src/main.rs", &"//! Duty.\n".repeat(61), &["at most 60"]);
    }
}
