//! AppArmor texts whose authors mean no good: none gets into the kernel, none changes what others loaded
//! there, and none ends a container of Pavise.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use testbed::GUEST_NODE;
use testbed::cluster::Cluster;
use testbed::kubectl::wait_for;
use testbed::pavise::{self, SYSTEM};

use crate::Test;
use crate::apparmor::{
    PATIENCE, POLICY, bundle, delete_bundle, expect_log, guest, is_logged, kernel, wait_for_kernel,
};
use crate::steps::apply;

pub(crate) const TESTS: &[(&str, Test)] =
    &[("every_hostile_apparmor_text_is_refused_and_the_hosts_profiles_stay", hostile_texts_are_refused)];

/// What nobody refuses, as it does no harm: how a line or a text ends.
const SERVED: &[&str] = &["e2e-crlf", "e2e-no-newline"];

/// A mebibyte of rules, by their bundles. How quick the machine is decides whether a limit is hit.
const LARGE: &[&str] = &["hostile-large", "hostile-distinct"];

fn hostile_texts_are_refused(cluster: &Cluster) -> anyhow::Result<()> {
    guest(cluster, "printf 'profile hosts-own { file, }' | apparmor_parser -r -K")?;
    let (policy_before, restarts_before) = (policy(cluster)?, restarts(cluster)?);
    for name in ["hosts-own", "cri-containerd.apparmor.d"] {
        let known = policy_before.get(name).with_context(|| format!("the kernel has no {name}"))?;
        ensure!(known.split_whitespace().count() > 1, "the kernel says no digest of {name}: {known}");
    }

    let long = format!("profile {} {{ file, }}", "n".repeat(5000));
    let large = format!("profile e2e-hostile-large {{\n{}}}\n", "  /some/path/to/a/file r,\n".repeat(40_000));
    // As many bytes, and nothing that the parser could put together.
    let rules: Vec<String> = (0..33_000).map(|n| format!("  /{:016x}/{n} r,\n", mixed(n))).collect();
    let distinct = format!("profile e2e-hostile-distinct {{\n{}}}\n", rules.concat());
    // Each star doubles the states of the automaton.
    let rules = (0..40).map(|n| format!("  /**{}*x*y*z**{n} rw,\n", "a*b*".repeat(n % 7 + 1)));
    let explosion = rules.collect::<Vec<_>>().concat();
    let explosion = format!("profile e2e-bad-explosion {{\n{explosion}}}\n");
    let refused: &[(&str, &str, &str)] = &[
        ("syntax", "profile e2e-bad {\n  file\n}\n", "invalid-policy"),
        ("unclosed", "profile e2e-bad {\n  file,\n", "invalid-policy"),
        ("empty", "", "no-profile"),
        ("comment", "# nothing\n", "no-profile"),
        ("include", "profile e2e-bad {\n  include <abstractions/none>\n}\n", "missing-include"),
        ("abi", "abi <abi/99.0>,\nprofile e2e-bad { file, }\n", "unknown-abi"),
        ("absolute", "profile e2e-bad {\n  include \"/etc/hostname\"\n}\n", "foreign-include"),
        ("memory", "profile e2e-bad {\n  include \"/proc/self/mem\"\n}\n", "foreign-include"),
        // What the parser has open itself: the text, and pipes. These two are refused before they are
        // compiled, and none of AppArmor's own files includes itself. That the parser comes to an end with
        // such files all the same is tested without a cluster: `what_includes_itself_comes_to_an_end` in
        // agent/tests/compiler.rs.
        ("fifo", "profile e2e-bad {\n  include \"/proc/self/fd/1\"\n}\n", "foreign-include"),
        ("recursion", "profile e2e-bad {\n  include \"/proc/self/fd/0\"\n}\n", "foreign-include"),
        (
            "upwards",
            "profile e2e-bad {\n  include <abstractions/../abstractions/base>\n}\n",
            "foreign-include",
        ),
        ("explosion", &explosion, "policy-limit"),
        ("twice", "profile e2e-bad { file, }\nprofile e2e-bad { file, }\n", "duplicate-profile"),
        ("variable", "@{x}=hosts-own\nprofile @{x} { file, }\n", "invalid-profile-name"),
        ("namespace", "profile :other:e2e-bad { file, }\n", "policy-namespace"),
        ("long", &long, "invalid-profile-name"),
        ("spaces", "profile \"e2e bad\" { file, }\n", "invalid-profile-name"),
        ("utf8", "profile e2e-bäd { file, }\n", "invalid-profile-name"),
        ("attached", "profile e2e-bad /usr/bin/** { file, }\n", "attachment"),
        ("path", "/usr/bin/e2e-bad { file, }\n", "invalid-profile-name"),
        ("unconfined", "profile e2e-bad flags=(unconfined) { file, }\n", "unconfined-profile"),
        ("runtimes", "profile cri-containerd.apparmor.d { file, }\n", "reserved-profile"),
        ("dockers", "profile docker-default { file, }\n", "reserved-profile"),
    ];
    // Of two keys with one name, only the first would be looked at.
    let named: Vec<(&str, String)> = refused
        .iter()
        .map(|(key, text, _)| (*key, text.replace("e2e-bad {", &format!("e2e-bad-{key} {{"))))
        .collect();
    let mut texts: Vec<(&str, &str)> = named.iter().map(|(key, text)| (*key, text.as_str())).collect();
    texts.extend([
        ("crlf", "profile e2e-crlf {\r\n  file,\r\n}\r\n"),
        ("no-newline", "profile e2e-no-newline { file, }"),
        ("hosts", "profile hosts-own { capability, }\n"),
    ]);
    apply(cluster, &bundle("hostile", &texts))?;
    for (name, text) in LARGE.iter().zip([&large, &distinct]) {
        apply(cluster, &bundle(name, &[("text", text)]))?;
    }
    for served in SERVED {
        wait_for_kernel(cluster, &format!("{served} (enforce)"), true)?;
    }
    for (key, _, code) in refused {
        expect_log(cluster, &[&format!("hostile/{key}"), &format!("[{code}]")])?;
    }
    for name in LARGE {
        let refusal = [&format!("{name}/text"), "[policy-limit]"];
        wait_for(&format!("the text of {name} to be loaded, or refused"), 2 * PATIENCE, || {
            let is_loaded = kernel(cluster)?.contains(&format!("e2e-{name} (enforce)"));
            Ok((is_loaded || is_logged(cluster, &refusal)?).then_some(()))
        })?;
    }
    // The name is another's on this node alone: no text can know that.
    expect_log(cluster, &["hosts-own", "taken"])?;
    ensure!(
        policy(cluster)? == policy_before,
        "the kernel has something else than before, and what is served"
    );
    ensure!(restarts(cluster)? == restarts_before, "a container did not survive it");
    ensure!(pavise::ask_agent(cluster, GUEST_NODE, "/readyz")? == "ready\n", "the agent is not ready");
    for name in [&["hostile"], LARGE].concat() {
        delete_bundle(cluster, name)?;
    }
    guest(cluster, &format!("printf hosts-own > {POLICY}/.remove")).map(drop)
}

/// A number that has little to do with that before it (splitmix64).
fn mixed(n: u64) -> u64 {
    let n = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n ^ (n >> 27)
}

/// Mode and digest of all that the kernel has, children among it, by name. What tests before this one had
/// loaded is left out: it may still be on its way out of the kernel.
fn policy(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let look = format!(
        "find {POLICY}/policy/profiles -name name | while read f; do d=${{f%/name}}; \
         echo $(cat $f $d/mode $d/raw_sha1 $d/raw_sha256 2>/dev/null); done"
    );
    let lines = guest(cluster, &look)?;
    let entries = lines.lines().filter_map(|line| line.split_once(' '));
    let is_tests = |name: &str| name.starts_with("e2e-") && !name.starts_with("e2e-bad");
    let policy: BTreeMap<String, String> = entries
        .filter(|(name, _)| !is_tests(name))
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect();
    ensure!(policy.len() > 1, "the kernel says next to nothing of its policy: {lines}");
    Ok(policy)
}

/// How often each container of Pavise was started again.
fn restarts(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
    let pods = cluster.kubectl().get(&["pods", "-n", SYSTEM])?;
    let mut restarts = BTreeMap::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let name = format!("{} {}", pod["metadata"]["name"], status["name"]);
            restarts.insert(name, status["restartCount"].as_u64().context("a container without a count")?);
        }
    }
    ensure!(
        restarts.len() >= 6,
        "two agents and the catalog, each with a compiler, are not all there: {restarts:?}"
    );
    Ok(restarts)
}
