//! Whatever the text, and whatever the parser prints of it, what is said of it is sound.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::apparmor::said;
use crate::diagnostic::Severity;
use crate::seed::runner;

/// What texts are made of, and what ends or begins something.
const PARTS: &[&str] = &[
    "profile ",
    "profile a {",
    "^h {",
    "hat ",
    "web",
    "/usr/bin/*",
    "\"",
    "\\",
    "{",
    "}",
    "(",
    ")",
    "<",
    ">",
    ",",
    ",\n",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "\0",
    "\u{feff}",
    "\u{e4}",
    "#",
    "#include ",
    "include ",
    "if exists ",
    "<abstractions/base>",
    "\"/etc/passwd\"",
    "abi ",
    "<abi/3.0>",
    "@{x}",
    "@x",
    "${y}",
    "=",
    "+=",
    "->",
    "flags=(",
    "complain",
    "unconfined",
    "xattrs=(",
    "peer=(",
    "deny ",
    "audit ",
    "owner ",
    "file",
    "change_profile",
    "unsafe ",
    "network ",
    "mount ",
    "dbus ",
    "signal ",
    "ptrace ",
    "unix ",
    "set rlimit ",
    "<=",
    "alias ",
    "if ",
    "else ",
    "not ",
    "defined ",
    "rwmix",
    ":ns:",
    "&",
    "*",
    "'",
    "in (",
    "docker-default",
];

const SOUND: &str = "abi <abi/3.0>,\ninclude <tunables/global>\n@{bin} = /bin /usr/bin\n\nprofile web flags=(complain) {\n  \
                     include <abstractions/base>\n  deny @{bin}/{sh,bash} x,\n  mount options=(ro, bind) \"/a b\" -> /c,\n  \
                     change_profile -> b,\n\n  ^hat {\n    signal (send) set=(hup) peer=(label=web),\n  }\n}\n";

/// What the parser says, with words of a text in it.
const SAID: &[&str] = &[
    "AppArmor parser error at line ",
    "AppArmor parser error for ",
    " in profile ",
    " at line ",
    "1",
    "3",
    "99",
    ": ",
    "syntax error, unexpected ",
    "TOK_CLOSE",
    ", expecting ",
    " or ",
    "end of file",
    "Could not open '",
    "'",
    "Invalid capability ",
    ".",
    "Lexer found unexpected character: '",
    "(0x",
    "7b",
    ")",
    "Found reference to variable ",
    ", but is never declared",
    "Multiple definitions for profile ",
    " exist",
    "Warning from ",
    " (",
    "line ",
    "): ",
    "RLIMIT '",
    "\n",
    "web",
    "bin",
    "\u{1b}",
    "\u{e4}",
    "/x",
    "Unable to parse input line '",
];

/// A text that looks like one, or does not.
fn text() -> impl Strategy<Value = String> {
    let parts = vec(select(PARTS), 0..60).prop_map(|parts| parts.concat());
    let letters = vec(any::<char>(), 0..40).prop_map(|letters| letters.into_iter().collect());
    let edits = vec((0..SOUND.len(), 0..4_usize, select(PARTS)), 0..6).prop_map(|edits| {
        edits.into_iter().fold(SOUND.to_owned(), |mut text, (at, length, part)| {
            let start = text.floor_char_boundary(at);
            let end = text.floor_char_boundary(start + length).max(start);
            text.replace_range(start..end, part);
            text
        })
    });
    prop_oneof![3 => parts, 3 => edits, 1 => letters]
}

fn is_sound(text: &str, findings: &[Diagnostic]) -> Result<(), TestCaseError> {
    prop_assert!(findings.len() <= 201, "{text:?}: {} findings", findings.len());
    for finding in findings {
        if let Some((line, column)) = finding.place.position {
            let own = text.split('\n').nth(line - 1);
            prop_assert!(own.is_some_and(|own| (1..=own.len() + 1).contains(&column)), "{text:?}: {finding}");
        }
        let said = finding.to_string();
        prop_assert!(said.len() < 1_000 && !said.chars().any(char::is_control), "{text:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn what_is_scanned_is_sound() {
    let claim = |text: String| {
        let scanned = scan(&text);
        is_sound(&text, &scanned.findings)?;
        for name in &scanned.names {
            prop_assert!(text.contains(name.as_str()), "{text:?}: {name}");
        }
        // Findings stand in the order of the text.
        prop_assert!(scanned.findings.is_sorted_by_key(|finding| finding.place.position), "{text:?}");
        Ok(())
    };
    runner(20_000).run(&text(), claim).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn what_is_made_of_the_parsers_words_is_sound() {
    let stderr = vec(select(SAID), 0..40).prop_map(|parts| parts.concat());
    let claim = |(text, stderr): (String, String)| {
        let refused = said::findings(&text, &stderr);
        is_sound(&text, &refused)?;
        is_sound(&text, &said::warnings(&text, &stderr))?;
        prop_assert!(refused.iter().any(|finding| finding.severity() == Severity::Error), "{stderr:?}");
        Ok(())
    };
    runner(10_000).run(&(text(), stderr), claim).unwrap_or_else(|error| panic!("{error}"));
}
