//! Claims about verdicts: what of a blob is loaded, and why the rest is not.

use std::fmt::Write as _;

use super::*;
use crate::apparmor::texts::blob;
use crate::apparmor::writer::Writer;

fn names(names: &[&str]) -> BTreeSet<ProfileName> {
    names.iter().map(|name| ProfileName::new(name).unwrap()).collect()
}

fn text() -> Digest {
    Digest::of(b"text")
}

/// The codes of what is found in `blob`, whose text declares `declared`.
fn codes(declared: &[&str], blob: &[u8]) -> Vec<&'static str> {
    let findings = match judge(text(), &names(declared), blob) {
        Ok((policy, warnings)) => {
            assert!(warnings.iter().all(|finding| finding.severity() == Severity::Warning));
            assert!(policy.profiles.keys().map(ProfileName::as_str).eq(declared.iter().copied()));
            assert_eq!((policy.text, policy.blob), (text(), Digest::of(blob)));
            warnings
        }
        Err(findings) => {
            assert!(findings.iter().any(|finding| finding.severity() == Severity::Error));
            findings
        }
    };
    findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn a_text_is_judged_by_what_it_is_compiled_to() {
    let mut told = String::new();
    for (name, declared) in [
        ("attachment.3.0", &["demo"][..]),
        ("child-and-hat.3.0", &["outer"]),
        ("child-attachment.3.0", &["outer"]),
        ("complain.3.0", &["demo"]),
        ("grandchild.3.0", &["outer"]),
        ("grandchild.4.0", &["outer"]),
        ("kill.3.0", &["demo"]),
        ("namespace.3.0", &["demo"]),
        ("namespace.5.4", &["demo"]),
        ("path.3.0", &["demo"]),
        ("rules.3.0", &["demo"]),
        ("rules.4.0", &["demo"]),
        ("rules.5.4", &["demo"]),
        ("two.3.0", &["one", "two"]),
        ("two.5.4", &["one"]),
        ("two.5.4", &["one", "two", "three"]),
        ("unconfined-child.3.0", &["demo"]),
        ("unconfined.3.0", &["demo"]),
        ("variable.3.0", &["demo"]),
    ] {
        writeln!(told, "{name}, which declares {}:", declared.join(", ")).unwrap();
        let (profiles, findings) = match judge(text(), &names(declared), blob(name)) {
            Ok((policy, warnings)) => (policy.profiles, warnings),
            Err(findings) => (BTreeMap::new(), findings),
        };
        for (name, contents) in profiles {
            writeln!(told, "  {name}: {}", contents.mode).unwrap();
            for (child, mode) in contents.children {
                writeln!(told, "    {child}: {mode}").unwrap();
            }
        }
        for finding in findings {
            writeln!(told, "  {finding}").unwrap();
        }
    }
    insta::assert_snapshot!(told);
}

/// A blob with profiles of these names, which enforce.
fn named(names: &[&str]) -> Vec<u8> {
    let profile = |name: &&str| Writer::default().profile(name, 0).blob;
    names.iter().flat_map(profile).collect()
}

#[test]
fn every_code_is_given_for_a_blob_that_has_it() {
    let long = format!("demo//{}", "c".repeat(LONGEST + 1));
    let deep = format!("demo{}", "//c".repeat(1_000));
    let open = |name: &str| Writer::default().header(7, None).name("profile").open().text(name);
    let rename = open("demo").name("rename").text("other").flags(0, 0).u32s(4).close().blob;
    for (expected, blob) in [
        (&[][..], named(&["demo"])),
        (&[], named(&["demo", "demo//a", "demo///bin/sh", "demo//{a,b}*"])),
        // Parents may come later.
        (&[], named(&["demo//a", "demo"])),
        (&["policy-mismatch"], Vec::new()),
        (&["policy-mismatch"], b"not a blob".to_vec()),
        (&["policy-mismatch"], named(&["demo", "other"])),
        (&["policy-mismatch"; 2], named(&["other"])),
        (&["policy-mismatch"], named(&["demo", "unconfined"])),
        (&["policy-mismatch"], named(&["demo", "other//a"])),
        (&["policy-mismatch"], named(&["demo", "demo//a//b"])),
        (&["policy-mismatch"], named(&["demo", "demo//a", "demo//a//b"])),
        (&["policy-mismatch"], named(&["demo", "demo///bin/sh", "demo///bin/sh//a"])),
        (&["policy-mismatch"], named(&["demo", &deep])),
        (&["policy-mismatch"], rename),
        (&["policy-mismatch"], [named(&["demo"]), vec![0]].concat()),
        (&["duplicate-profile"], named(&["demo", "demo"])),
        (&["duplicate-profile"], named(&["demo", "demo//a", "demo//a"])),
        (&["attachment", "policy-mismatch"], named(&["demo", "/bin/sh"])),
        (&["policy-namespace"], named(&["demo", ":space:other"])),
        (&["policy-namespace"], named(&["demo", " :space://other"])),
        (&["policy-namespace", "policy-mismatch"], named(&[":space:demo"])),
        (&["invalid-profile-name"], named(&["demo", "demo//"])),
        (&["invalid-profile-name"], named(&["demo", "//demo"])),
        (&["invalid-profile-name"], named(&["demo", "demo//&other"])),
        (&["invalid-profile-name"], named(&["demo", "demo//:space:a"])),
        (&["invalid-profile-name"], named(&["demo", "demo//a (unconfined)"])),
        (&["invalid-profile-name"], named(&["demo", "demo//ä"])),
        (&["invalid-profile-name"], named(&["demo", &long])),
        (&["unconfined-profile"], Writer::default().profile("demo", 3).blob),
        (&["unconfined-profile"], Writer::default().profile("demo", 0).profile("demo//a", 3).blob),
        (&["complain-mode"], Writer::default().profile("demo", 1).blob),
        (&["complain-mode"], Writer::default().profile("demo", 0).profile("demo//a", 1).blob),
        (&["policy-limit"], named(&["demo"]).repeat(LARGEST / named(&["demo"]).len() + 1)),
    ] {
        let shown = String::from_utf8_lossy(&blob[..blob.len().min(300)]).into_owned();
        assert_eq!(codes(&["demo"], &blob), expected, "{shown:?}");
    }
}

#[test]
fn a_text_that_declares_nothing_is_compiled_to_nothing() {
    assert_eq!(codes(&[], &[]), ["no-profile"]);
}

#[test]
fn a_name_from_a_blob_is_shown_as_what_it_is_and_no_longer_than_needed() {
    let deep = format!("demo{}", "//c".repeat(5_000));
    let blob = named(&["demo", "\u{1b}[2J\n", &"x".repeat(5_000), &deep]);
    let findings = judge(text(), &names(&["demo"]), &blob).unwrap_err();
    for finding in findings {
        let shown = finding.to_string();
        assert!(shown.len() < 500 && !shown.contains(char::is_control), "{shown}");
    }
}

#[test]
fn errors_come_first_and_there_are_not_too_many() {
    let mut writer = Writer::default().profile("demo", 1);
    for child in 0..300 {
        writer = writer.profile(&format!("demo//{child}"), 1);
    }
    let warned = codes(&["demo"], &writer.blob);
    assert_eq!((warned.len(), warned.last()), (MOST + 1, Some(&"more-findings")));
    let refused = codes(&["demo"], &writer.profile("demo//last", 3).blob);
    assert_eq!((refused.len(), refused.first()), (MOST + 1, Some(&"unconfined-profile")));
}
