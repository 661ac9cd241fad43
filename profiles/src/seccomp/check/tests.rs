//! Claims about findings, one document each.

use super::*;

mod documents;

/// The findings about `text` on a usual node.
fn check(text: &str) -> Vec<Diagnostic> {
    super::check(text, Platform::EXAMPLE).findings
}

/// Claims the findings about `text`: their codes, lines and paths, such as
/// `unknown-action 3 $.syscalls[0].action`.
fn check_findings(text: &str, expected: &[&str]) {
    let place =
        |finding: &Diagnostic| finding.place.position.map_or("-".to_owned(), |(line, _)| line.to_string());
    let found: Vec<String> = check(text)
        .iter()
        .map(|finding| format!("{} {} {}", finding.code, place(finding), finding.place.path))
        .collect();
    assert_eq!(found, expected, "{text}");
}

/// A document that refuses by default, with what programs need and these further rules, each on a line of its
/// own.
fn with_rules(rules: &[&str]) -> String {
    let needed = format!(r#"{{"names":{:?},"action":"SCMP_ACT_ALLOW"}}"#, [TO_START, &[TO_END]].concat());
    let rules: Vec<&str> = [needed.as_str()].into_iter().chain(rules.iter().copied()).collect();
    format!("{{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[\n{}]}}", rules.join(",\n"))
}

fn check_rules(rules: &[&str], expected: &[&str]) {
    check_findings(&with_rules(rules), expected);
}

#[test]
fn a_sound_document_has_no_findings() {
    check_findings(r#"{"defaultAction":"SCMP_ACT_LOG"}"#, &[]);
    check_findings(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#, &[]);
    check_rules(
        &[
            r#"{"names":["read","write"],"action":"SCMP_ACT_ALLOW","args":null,"comment":"","includes":{},"excludes":{}}"#,
            r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}]}"#,
            r#"{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38}"#,
        ],
        &[],
    );
}

#[test]
fn a_document_that_would_leave_a_container_unconfined_is_refused() {
    for text in [
        "{}",
        r#"{"defaultAction":""}"#,
        r#"{"defaultAction":null}"#,
        r#"{"syscalls":[]}"#,
        r#"{"x":{"defaultAction":"SCMP_ACT_LOG"}}"#,
    ] {
        let codes: Vec<Code> = check(text).iter().map(|finding| finding.code).collect();
        assert!(codes.contains(&Code::MissingDefaultAction), "{text}: {codes:?}");
    }
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        "{",
        "{} {}",
        r#"{"defaultAction":"SCMP_ACT_LOG",}"#,
        "// a\n{}",
        "\u{feff}{}",
        "{\"defaultAction\":\"\u{0}\"}",
    ] {
        let codes: Vec<Code> = check(text).iter().map(|finding| finding.code).collect();
        assert_eq!(codes, [Code::InvalidJson], "{text:?}");
    }
}

#[test]
fn what_it_is_instead_of_json_is_told() {
    for (text, expected) in [
        ("", "the document is empty"),
        ("\n\n", "the document is empty"),
        ("{\"a\": ", "ends too early"),
        ("\u{feff}{}", "byte order mark"),
        ("{\0\"\0a\0", "UTF-16"),
        ("apiVersion: v1\nkind: ConfigMap", "neither YAML nor comments"),
        ("---\na: 1", "neither YAML nor comments"),
        ("// a\n{}", "neither YAML nor comments"),
        ("{\"a\": 1,}", "trailing commas"),
        ("{'a': 1}", "single quotes"),
    ] {
        let [finding] = &check(text)[..] else { panic!("{text:?}") };
        assert!(finding.help.contains(expected), "{text:?}: {finding}");
        assert!(finding.place.position.is_some_and(|(line, column)| line > 0 && column > 0), "{finding}");
    }
}

#[test]
fn a_document_that_is_nested_too_deep_for_go_is_refused() {
    let nested = |depth: usize| {
        format!(r#"{{"defaultAction":"SCMP_ACT_LOG","comment":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    check_findings(&nested(9_999), &[]);
    check_findings(&nested(10_000), &["invalid-json 1 $"]);
    check_findings(&nested(500_000), &["invalid-json 1 $"]);
}

#[test]
fn every_value_of_a_wrong_type_is_found() {
    for text in ["null", "[]", "1", r#""{}""#] {
        check_findings(text, &["wrong-type 1 $"]);
    }
    check_findings(r#"{"defaultAction":3}"#, &["wrong-type 1 $.defaultAction"]);
    check_findings(
        "{\"defaultAction\":\"SCMP_ACT_LOG\",\n\"defaultErrnoRet\":-1,\n\"architectures\":{},\n\"flags\":[1],\n\"syscalls\":[\"x\",\n\
         {\"names\":\"read\",\n\"action\":[],\n\"args\":[{\"index\":1.5,\"op\":\"SCMP_CMP_EQ\"}]}]}",
        &[
            "wrong-type 2 $.defaultErrnoRet",
            "wrong-type 3 $.architectures",
            "wrong-type 4 $.flags[0]",
            "wrong-type 5 $.syscalls[0]",
            "wrong-type 6 $.syscalls[1].names",
            "wrong-type 7 $.syscalls[1].action",
            "wrong-type 8 $.syscalls[1].args[0].index",
        ],
    );
}

#[test]
fn a_word_that_keeps_a_container_from_starting_is_found() {
    check_findings(
        r#"{"defaultAction":"SCMP_ACT_LGO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_M68K"],"flags":["NO_SUCH"]}"#,
        &[
            "unknown-action 1 $.defaultAction",
            "unknown-architecture 1 $.architectures[1]",
            "unknown-flag 1 $.flags[0]",
        ],
    );
    check_rules(
        &[
            r#"{"names":["read"],"action":"allow"}"#,
            r#"{"names":["write"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":1,"op":"=="}]}"#,
            r#"{"names":["open"]}"#,
            r#"{"names":["close"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1}]}"#,
        ],
        &[
            "unknown-action 3 $.syscalls[1].action",
            "argument-index 4 $.syscalls[2].args[0]",
            "unknown-operator 4 $.syscalls[2].args[0].op",
            "unknown-action 5 $.syscalls[3]",
            "unknown-operator 6 $.syscalls[4].args[0]",
        ],
    );
}

#[test]
fn a_misspelt_action_is_a_rule_without_one() {
    check_rules(
        &[r#"{"names":["open"],"actoin":"SCMP_ACT_ALLOW"}"#],
        &["unknown-action 3 $.syscalls[1]", "unknown-field 3 $.syscalls[1].actoin"],
    );
}

#[test]
fn keys_are_read_as_go_reads_them() {
    check_findings(
        "{\"DefaultAction\":\"SCMP_ACT_LOG\",\n\"\u{17f}ysca\u{6c}ls\":null,\n\"sycalls\":[],\n\"$schema\":\"x\"}",
        &["key-case 1 $.DefaultAction", "key-case 2 $.\u{17f}yscalls", "unknown-field 3 $.sycalls"],
    );
    check_findings(
        "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\n\"defaultAction\":\"SCMP_ACT_ALLOW\"}",
        &["duplicate-key 2 $.defaultAction"],
    );
    check_findings(
        "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\n\"\\u0064efaultAction\":null}",
        &["duplicate-key 2 $.defaultAction"],
    );
}

#[test]
fn rules_that_undo_each_other_are_found() {
    check_rules(
        &[
            r#"{"names":["read"],"action":"SCMP_ACT_ALLOW"}"#,
            r#"{"names":["read"],"action":"SCMP_ACT_KILL"}"#,
            r#"{"names":["ioctl"],"action":"SCMP_ACT_KILL","args":[{"index":1,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
            r#"{"names":["ioctl"],"action":"SCMP_ACT_ALLOW"}"#,
            r#"{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_NE"}]}"#,
            r#"{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2,"op":"SCMP_CMP_NE"}]}"#,
            r#"{"names":["prctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_NE"}]}"#,
        ],
        &[
            "clashing-rules 4 $.syscalls[2].names[0]",
            "clashing-rules 6 $.syscalls[4].names[0]",
            "clashing-rules 8 $.syscalls[6].names[0]",
        ],
    );
}

#[test]
fn two_conditions_on_one_argument_are_said_to_be_an_or() {
    check_rules(
        &[
            r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_GE"},{"index":0,"value":3,"op":"SCMP_CMP_LE"}]}"#,
        ],
        &["any-condition 3 $.syscalls[1].args[1]"],
    );
}

#[test]
fn rules_without_effect_are_found() {
    check_rules(
        &[
            r#"{"names":["read"],"action":"SCMP_ACT_ERRNO"}"#,
            r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#,
            r#"{"names":["open"],"action":"SCMP_ACT_ALLOW","errnoRet":1}"#,
            r#"{"names":["dup"],"action":"SCMP_ACT_ERRNO","errnoRet":38}"#,
        ],
        &[
            "redundant-rule 3 $.syscalls[1]",
            "empty-rule 4 $.syscalls[2]",
            "unused-errno 5 $.syscalls[3].errnoRet",
        ],
    );
}

#[test]
fn a_notification_that_nobody_can_get_is_refused() {
    check_findings(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, &["notify-misuse 1 $.defaultAction"]);
    check_rules(
        &[r#"{"names":["mount","write"],"action":"SCMP_ACT_NOTIFY"}"#],
        &[
            "notify-misuse 3 $.syscalls[1].names[1]",
            "clashing-rules 3 $.syscalls[1].names[1]",
            "notify-misuse 3 $.syscalls[1].action",
        ],
    );
    check_findings(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s","syscalls":[{"names":["mount"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        &[],
    );
}

#[test]
fn what_every_program_needs_is_missed() {
    check_findings(
        "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{\"names\":[\"read\"],\"action\":\"SCMP_ACT_ALLOW\"}]}",
        &["missing-call 1 $.defaultAction", "missing-call 1 $.defaultAction"],
    );
    check_rules(
        &[
            r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_MASKED_EQ"}]}"#,
        ],
        &["clone3 1 $.defaultAction"],
    );
}

#[test]
fn a_finding_says_what_where_and_what_to_do() {
    let said: Vec<String> =
        check("{\n  \"defaultAction\": \"SCMP_ACT_EROR\"\n}").iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "error[unknown-action] line 2, column 20, $.defaultAction: \"SCMP_ACT_EROR\" is no action that runc knows: the \
          container would not start; did you mean SCMP_ACT_ERRNO?; correct it"
        ]
    );
}

#[test]
fn a_finding_is_short_whatever_it_quotes() {
    let long = "x".repeat(1_000_000);
    for text in [
        format!("\"{long}\""),
        format!("{{\"defaultAction\":\"{long}\"}}"),
        format!("{{\"defaultAction\":\"SCMP_ACT_LOG\",\"{long}\":1}}"),
        format!("{{\"defaultAction\":[\"{long}\"]}}"),
    ] {
        for finding in check(&text) {
            assert!(finding.message.len() < 400, "{}", finding.message.len());
        }
    }
}

#[test]
fn a_document_made_to_be_slow_or_to_fill_the_memory_does_neither() {
    let same = r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"SCMP_CMP_NE"}]},"#
        .repeat(10_000);
    let unknown = (0..60_000).fold(String::new(), |text, n| text + &format!("\"x{n}\":1,"));
    let (one, many) = (r#"{"index":0,"value":7,"op":"SCMP_CMP_EQ"},"#, "\"read\",\"open\",".repeat(50));
    let products = format!(
        r#"{{"names":[{many}"dup"],"action":"SCMP_ACT_ALLOW","args":[{}{{"op":"SCMP_CMP_NE"}}]}},"#,
        one.repeat(50)
    )
    .repeat(300);
    for text in [
        format!(r#"{{"defaultAction":"SCMP_ACT_KILL","syscalls":[{products}{{}}]}}"#),
        format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{same}{{}}]}}"#),
        format!(r#"{{{unknown}"defaultAction":"SCMP_ACT_LGO"}}"#),
    ] {
        let findings = check(&text);
        assert!(findings.len() <= 200, "{}", findings.len());
        assert!(
            findings.iter().any(|finding| finding.code == Code::UnknownAction),
            "an error is lost among warnings"
        );
    }
}

#[test]
fn a_finding_is_one_short_line_whatever_stands_in_the_document() {
    let long = "k".repeat(100_000);
    for text in [
        r#"{"defaultAction":"SCMP_ACT_LOG","x\u001b[31m\n":1}"#,
        "{\"defaultAction\":{\n\u{85}\u{202e}",
        "{\"defaultAction\":{\n\"\u{85}\u{202e}\":1}}",
        r#"{"defaultAction":"SCMP_ACT_LOG","syscalls":[{"names":["a\n\u202e"],"action":"SCMP_ACT_LOG\r"}]}"#,
        &format!("{{\"defaultAction\":\"SCMP_ACT_LOG\",\"{long}\":1}}"),
    ] {
        let line = |finding: &Diagnostic| format!("{} {}", finding.place, finding.message);
        let lines: Vec<String> = check(text).iter().map(line).collect();
        assert!(!lines.is_empty());
        for line in lines {
            let is_seen = |letter: char| !letter.is_control() && letter != '\u{202e}';
            assert!(line.chars().all(is_seen) && line.len() < 1_000, "{line:?}");
        }
    }
}
