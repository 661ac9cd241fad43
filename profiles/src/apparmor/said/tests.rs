//! Claims about what is made of the parser's messages.

use super::*;
use crate::diagnostic::Severity;
use messages::{REFUSED, WARNED};

mod messages;

/// What the parser prints if it was given the text as a file, and as standard input.
const FILE: &str = "AppArmor parser error for /dev/stdin in profile /dev/stdin at line ";
const STANDARD_INPUT: &str = "AppArmor parser error at line ";

fn said(findings: &[Diagnostic]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_said_of_the_parsers_messages_is_what_was_reviewed() {
    let refused = REFUSED.iter().map(|(text, stderr)| (text, findings(text, &stderr.replace('%', FILE))));
    let warned = WARNED.iter().map(|(text, stderr)| (text, warnings(text, stderr)));
    let all: Vec<String> = refused
        .chain(warned)
        .map(|(text, findings)| format!("{text:?}\n  {}", said(&findings).join("\n  ")))
        .collect();
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("messages", all.join("\n"));
    });
}

#[test]
fn a_text_that_the_parser_refuses_has_an_error_and_every_message_is_known() {
    for (text, stderr) in REFUSED {
        let findings = findings(text, &stderr.replace('%', FILE));
        assert!(findings.iter().any(|finding| finding.severity() == Severity::Error), "{text:?}");
        let is_unknown = |finding: &Diagnostic| finding.message == "the parser refuses the text";
        assert!(!findings.iter().any(is_unknown), "{text:?}: {stderr:?}");
    }
}

#[test]
fn it_is_the_same_to_give_the_text_as_a_file_or_as_standard_input() {
    for (text, stderr) in REFUSED {
        let of = |start| findings(text, &stderr.replace('%', start));
        assert_eq!(of(FILE), of(STANDARD_INPUT), "{text:?}");
    }
}

#[test]
fn every_place_is_in_the_text() {
    for (text, stderr) in REFUSED.iter().chain(WARNED) {
        let found = [findings(text, &stderr.replace('%', FILE)), warnings(text, stderr)].concat();
        for (line, column) in found.iter().filter_map(|finding| finding.place.position) {
            let own = text.split('\n').nth(line - 1).unwrap();
            assert!((1..=own.len() + 1).contains(&column), "{text:?}: {line}:{column}");
        }
    }
}

#[test]
fn nothing_that_is_not_in_the_text_is_passed_on() {
    let text = "profile a {\n  include <abstractions/base>\n}\n";
    for stderr in [
        "AppArmor parser error at line 1: syntax error, unexpected TOK_SECRET, expecting TOK_SECRET",
        "AppArmor parser error at line 1: SECRET",
        "AppArmor parser error at line 1: Invalid capability SECRET.",
        "AppArmor parser error at line 1: Could not open '/SECRET'",
        "AppArmor parser error at line 1: Could not open '/SECRET': SECRET",
        "AppArmor parser error at line 99: Invalid profile flag: SECRET.",
        "AppArmor parser error at line 99999999999999999999: SECRET",
        "AppArmor parser error for SECRET in profile /SECRET/abstractions/base at line 1: SECRET",
        "AppArmor parser error for SECRET in profile /SECRET at line 1: Could not open 'SECRET'",
        "AppArmor parser error for SECRET at line 2: SECRET",
        "AppArmor parser error for SECRET",
        "AppArmor parser error at line 1: Lexer found unexpected character: 'SECRET' (0xSECRET) in state: SECRET",
        "Found reference to variable SECRET, but is never declared",
        "apparmor_parser: Invalid profile name 'SECRET' - bad regular expression",
        "Warning from SECRET (SECRET line 1): SECRET",
        "Warning from profile SECRET (SECRET): SECRET rules not enforced",
        "Warning from stdin (line 1): RLIMIT 'SECRET' no units specified",
        "SECRET",
        "\u{1b}[31mSECRET",
        "",
    ] {
        let found = findings(text, stderr);
        let said = said(&found).join("\n");
        assert!(!said.contains("SECRET") && !said.contains('\u{1b}'), "{stderr}: {said}");
        assert!(found.iter().any(|finding| finding.severity() == Severity::Error), "{stderr}");
    }
}

#[test]
fn an_error_in_a_file_that_is_included_is_told_at_the_include() {
    let text = "include <tunables/global>\nprofile a {\n  include <abstractions/base>\n  include <abstractions/x>\n}\n";
    for (file, expected) in [
        ("/etc/apparmor.d/tunables/global", "line 1, column 9"),
        ("/etc/apparmor.d/abstractions/base", "line 3, column 11"),
        ("abstractions/x", "line 4, column 11"),
        ("/etc/apparmor.d/abstractions/crypto", ""),
        ("/etc/notabstractions/x", ""),
    ] {
        let stderr = format!(
            "AppArmor parser error for /dev/stdin in profile {file} at line 16: syntax error, unexpected TOK_MODE"
        );
        let found = findings(text, &stderr);
        let places: Vec<String> = found.iter().map(|finding| finding.place.to_string()).collect();
        assert_eq!(places, [expected], "{file}");
    }
}

#[test]
fn a_word_is_told_without_what_it_would_do_to_a_terminal() {
    let text = "profile a {\n  capability \u{1b}[31m,\n}\n";
    let [finding] = &findings(text, "AppArmor parser error at line 2: Invalid capability \u{1b}[31m.")[..]
    else {
        panic!("one finding");
    };
    assert!(finding.message.contains("\\u{1b}[31m"), "{finding}");
}

#[test]
fn many_messages_are_cut() {
    let text = format!("profile a {{\n{}}}\n", "  capability x,\n".repeat(1_000));
    let stderr: Vec<String> = (2..1_000)
        .map(|line| format!("AppArmor parser error at line {line}: Invalid capability x.\n"))
        .collect();
    let found = findings(&text, &stderr.concat());
    assert_eq!(found.len(), 101);
    assert_eq!(found.last().map(|finding| finding.code), Some(Code::MoreFindings));
}

#[test]
fn of_what_is_said_of_a_long_text_less_is_read() {
    let stderr: Vec<String> = (2..1_000)
        .map(|line| format!("AppArmor parser error at line {line}: Invalid capability x.\n"))
        .collect();
    let rules = "  capability x,\n".repeat(1_000);
    for (length, expected) in [(512 << 10, 16), (1 << 20, 8)] {
        let start = format!("profile a {{\n{rules}}}\n");
        let text = format!("{start}{}", "#".repeat(length - start.len()));
        assert_eq!(findings(&text, &stderr.concat()).len(), expected, "{length}");
    }
    assert_eq!(findings("", &stderr.concat()).len(), 1);
}
