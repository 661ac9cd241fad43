//! `pavise lint` itself, on AppArmor texts, with the parser of this machine.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// A profile, and what is at its end.
fn profile(rules: &str) -> String {
    format!("#include <tunables/global>\nprofile web {{\n  #include <abstractions/base>\n{rules}\n}}\n")
}

/// What comes of `text` on standard input: the exit code, standard output and standard error.
fn lint(arguments: &[&str], text: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pavise"));
    command.env_clear().current_dir("/").arg("lint").args(arguments).arg("-");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].map(|words| String::from_utf8(words).unwrap());
    let [out, error] = words;
    (output.status.code(), out, error)
}

/// Claims the exit code, and how each line of the output begins.
fn check(arguments: &[&str], text: &str, code: i32, expected: &[&str]) {
    let (ended, out, error) = lint(arguments, text);
    let is_expected = out.lines().zip(expected).all(|(line, expected)| line.starts_with(expected));
    assert!(is_expected && out.lines().count() == expected.len(), "{text}\n{out}{error}");
    assert_eq!((ended, error.as_str()), (Some(code), ""), "{text}\n{out}");
}

#[test]
fn rules_are_compiled_and_what_comes_of_them_is_judged() {
    check(&[], &profile("  /etc/hosts r,"), 0, &[]);
    check(&[], &profile("  /etc/hosts r,\n  fil,"), 1, &["<stdin>:5:6: error[invalid-policy]: "]);
    check(&[], &profile("  #include <abstractions/none>"), 1, &["<stdin>:4:13: error[missing-include]: "]);
    // The words of the text alone do not tell this, and the blob does.
    let nested = profile("  profile b {\n    profile c {\n    }\n  }");
    check(&[], &nested, 1, &["<stdin>:1:1: error[policy-mismatch]: "]);
    let explosion = profile(&format!("  /{{,**}}a{} r,", "?".repeat(40)));
    check(&[], &explosion, 1, &["<stdin>:1:1: error[policy-limit]: "]);
}

#[test]
fn what_a_text_and_its_blob_both_say_is_said_once() {
    let text = "profile web flags=(complain) {\n}\n";
    check(&[], text, 0, &["<stdin>:1:20: warning[complain-mode]: "]);
}

#[test]
fn a_text_that_its_own_words_refuse_is_not_compiled() {
    check(
        &[],
        "/usr/bin/x {\n  include <abstractions/base>\n  fil,\n}\n",
        1,
        &["<stdin>:1:1: error[invalid-profile-name]: "],
    );
}

#[test]
fn rules_are_judged_for_the_features_that_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let features = directory.path().join("features");
    // A kernel that mediates files alone.
    let few =
        "file {mask {create read write exec append mmap_exec link lock\n}\n}\ncaps {mask {chown\n}\n}\n";
    fs::write(&features, few).unwrap();
    let text = profile("  dbus,");
    check(&[], &text, 0, &[]);
    let named = format!("--features={}", features.display());
    let (code, out, error) = lint(&[&named], &text);
    assert!(code == Some(0) && out.contains("warning[parser-warning]"), "{out}{error}");

    let (code, out, error) = lint(&["--features=/nowhere"], &text);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.contains("reading /nowhere (--features chooses another)"), "{error}");
}

#[test]
fn without_a_parser_it_is_said_that_rules_are_not_compiled() {
    let none = ["--parser=/nowhere/apparmor_parser"];
    for (text, code, expected) in [
        (profile("  fil,"), 0, ""),
        ("profile docker-default {\n  file,\n}\n".to_owned(), 1, "<stdin>:1:9: error[reserved-profile]"),
    ] {
        let (ended, out, error) = lint(&none, &text);
        assert!(ended == Some(code) && out.starts_with(expected), "{out}{error}");
        assert_eq!(error.matches("there is no /nowhere/apparmor_parser").count(), 1, "{error}");
    }
    // Who has seccomp profiles only need not know.
    assert_eq!(lint(&none, "{\"defaultAction\":\"SCMP_ACT_LOG\"}"), (Some(0), String::new(), String::new()));
}

#[test]
fn a_parser_that_can_not_be_run_is_a_failure_and_keeps_no_other_text_from_being_judged() {
    let directory = tempfile::tempdir().unwrap();
    let parser = directory.path().join("parser");
    fs::write(&parser, "no program").unwrap();
    let (code, out, error) = lint(&[&format!("--parser={}", parser.display())], "profile x {\n}\n");
    assert_eq!(code, Some(1));
    assert!(out.starts_with("<stdin>:1:9: warning[no-base-abstraction]"), "{out}");
    assert!(error.contains("compiling <stdin>: running "), "{error}");
}

#[test]
fn the_examples_are_all_right() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/examples");
    for kind in ["seccomp", "apparmor"] {
        let directory = format!("{examples}/{kind}-tutorial");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pavise"));
        let output = command.args(["lint", "--kind", kind, &directory]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}
