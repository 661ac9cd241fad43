//! Claims about what is left of documents on nodes.

use serde_json::{Value, json};

use super::*;
use crate::diagnostic::Diagnostic;
use crate::seccomp::{Checked, check};

/// Codes and paths of findings.
fn shown(findings: &[Diagnostic]) -> Vec<String> {
    findings.iter().map(|finding| format!("{} {}", finding.code, finding.place.path)).collect()
}

/// Claims what `text` is on `node`.
fn check_resolved(node: &str, text: &Value, expected: &Value) {
    let Checked { findings, resolved } = check(&text.to_string(), Platform::example(node));
    let resolved = resolved.unwrap_or_else(|| panic!("{text} is not resolved: {findings:?}"));
    assert_eq!(&serde_json::from_str::<Value>(&resolved).unwrap(), expected, "{text}");
}

/// Claims the findings about `text` on `node`.
fn check_findings(node: &str, text: &Value, expected: &[&str]) {
    let checked = check(&text.to_string(), Platform::example(node));
    assert_eq!(shown(&checked.findings), expected, "{text}");
    let is_refused =
        checked.findings.iter().any(|finding| finding.severity() == crate::diagnostic::Severity::Error);
    assert!(!is_refused || checked.resolved.is_none(), "{text} is refused and resolved");
}

/// A document that allows by default, with one rule: `openat` fails where `fields` have it hold.
fn with_rule(fields: &Value) -> Value {
    let mut rule = json!({"names": ["openat"], "action": "SCMP_ACT_ERRNO"});
    rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

/// Claims whether a rule with `fields` holds on `node`.
fn check_holds(node: &str, fields: &Value, expected: bool) {
    let text = with_rule(fields);
    let resolved =
        check(&text.to_string(), Platform::example(node)).resolved.unwrap_or_else(|| text.to_string());
    let resolved: Value = serde_json::from_str(&resolved).unwrap();
    assert_eq!(resolved["syscalls"].as_array().unwrap().len() == 1, expected, "{fields} on {node}");
}

#[test]
fn a_document_in_the_runtimes_own_form_stays_as_it_is() {
    for text in [
        json!({"defaultAction": "SCMP_ACT_LOG"}),
        json!({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64"], "comment": "c", "x": 1}),
        json!({"defaultAction": "SCMP_ACT_LOG", "archMap": [], "defaultErrno": ""}),
        json!({"defaultAction": "SCMP_ACT_LOG", "archMap": null, "defaultErrno": null}),
        with_rule(
            &json!({"includes": {}, "excludes": {"caps": [], "arches": null}, "name": "", "errno": ""}),
        ),
        with_rule(&json!({"includes": null, "excludes": null, "name": null, "errno": null})),
    ] {
        assert_eq!(check(&text.to_string(), Platform::example("amd64 6.12")).resolved, None, "{text}");
    }
}

#[test]
fn a_resolved_document_is_written_in_one_way() {
    let text = r#"{"syscalls": [{"args": [{"op": "SCMP_CMP_MASKED_EQ", "valueTwo": 18446744073709551615, "value": 1}],
        "errno": "ENOSYS", "action": "SCMP_ACT_ERRNO", "name": "clone", "comment": "dropped"}, {"names": ["a", "b"],
        "action": "SCMP_ACT_LOG"}], "flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerMetadata": "m", "listenerPath": "/p",
        "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86"]}"#;
    let expected = r#"{
  "defaultAction": "SCMP_ACT_ALLOW",
  "defaultErrnoRet": 1,
  "architectures": [
    "SCMP_ARCH_X86"
  ],
  "flags": [
    "SECCOMP_FILTER_FLAG_LOG"
  ],
  "listenerPath": "/p",
  "listenerMetadata": "m",
  "syscalls": [
    {
      "names": [
        "clone"
      ],
      "action": "SCMP_ACT_ERRNO",
      "errnoRet": 38,
      "args": [
        {
          "index": 0,
          "value": 1,
          "valueTwo": 18446744073709551615,
          "op": "SCMP_CMP_MASKED_EQ"
        }
      ]
    },
    {
      "names": [
        "a",
        "b"
      ],
      "action": "SCMP_ACT_LOG"
    }
  ]
}"#;
    assert_eq!(check(text, Platform::example("amd64 6.12")).resolved.as_deref(), Some(expected));
}

#[test]
fn what_is_resolved_is_in_the_runtimes_own_form() {
    let text = with_rule(
        &json!({"name": "close", "names": [], "errno": "EPERM", "includes": {"arches": ["arm64"]}}),
    );
    let once = check(&text.to_string(), Platform::example("arm64 6.1")).resolved.unwrap();
    assert_eq!(check(&once, Platform::example("arm64 6.1")).resolved, None);
    assert_eq!(check(&once, Platform::example("amd64 6.1")).findings, []);
}

#[test]
fn the_entry_for_the_node_becomes_the_architectures() {
    let text = json!({"defaultAction": "SCMP_ACT_LOG", "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ]});
    for (node, expected) in [
        ("amd64 6.12", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
        ("arm64 6.12", json!(["SCMP_ARCH_AARCH64"])),
    ] {
        let resolved = json!({"defaultAction": "SCMP_ACT_LOG", "architectures": expected, "syscalls": []});
        check_resolved(node, &text, &resolved);
        check_findings(node, &text, &[]);
    }
    check_resolved("s390x 6.12", &text, &json!({"defaultAction": "SCMP_ACT_LOG", "syscalls": []}));
    check_findings("s390x 6.12", &text, &["missing-architecture $.archMap"]);
}

#[test]
fn architectures_are_checked_for_all_nodes() {
    let document = |map: Value| json!({"defaultAction": "SCMP_ACT_LOG", "archMap": map});
    for (map, expected) in [
        (
            json!([{"architecture": "SCMP_ARCH_X86_46"}]),
            &["missing-architecture $.archMap", "unknown-architecture $.archMap[0].architecture"][..],
        ),
        (
            json!([{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["x86"]}, {"architecture": "SCMP_ARCH_ARM",
                "subArchitectures": ["arm"]}]),
            &[
                "unknown-architecture $.archMap[0].subArchitectures[0]",
                "unknown-architecture $.archMap[1].subArchitectures[0]",
            ],
        ),
        (json!([{}]), &["missing-architecture $.archMap", "unknown-architecture $.archMap[0]"]),
        (json!({}), &["wrong-type $.archMap"]),
        (json!(["x"]), &["wrong-type $.archMap[0]"]),
        (json!([{"architecture": 3}]), &["wrong-type $.archMap[0].architecture"]),
        (
            json!([{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": "x"}]),
            &["wrong-type $.archMap[0].subArchitectures"],
        ),
        (json!([{"architecture": "SCMP_ARCH_X86_64", "subs": []}]), &["unknown-field $.archMap[0].subs"]),
    ] {
        check_findings("amd64 6.12", &document(map), expected);
    }
}

#[test]
fn what_excludes_each_other_is_refused() {
    check_findings(
        "amd64 6.12",
        &json!({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64"],
            "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}),
        &["exclusive-fields $.archMap"],
    );
    // Also where the rule would be left out.
    for fields in [json!({"name": "close"}), json!({"name": "close", "includes": {"arches": ["s390x"]}})] {
        check_findings("amd64 6.12", &with_rule(&fields), &["exclusive-fields $.syscalls[0].name"]);
    }
}

#[test]
fn a_rule_holds_where_everything_included_is_and_nothing_excluded() {
    for (fields, expected) in [
        (json!({"includes": {"arches": ["amd64"]}}), true),
        (json!({"includes": {"arches": ["s390x", "amd64"]}}), true),
        (json!({"includes": {"arches": ["x32", "x86"]}}), false),
        (json!({"excludes": {"arches": ["amd64"]}}), false),
        (json!({"excludes": {"arches": ["s390", "s390x"]}}), true),
        (json!({"includes": {"caps": ["CAP_CHOWN"]}}), true),
        (json!({"includes": {"caps": ["CAP_SYS_ADMIN"]}}), false),
        (json!({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}), false),
        (json!({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}), true),
        (json!({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}}), false),
        (json!({"includes": {"minKernel": "6.11"}}), true),
        (json!({"includes": {"minKernel": "6.12"}}), true),
        (json!({"includes": {"minKernel": "6.13"}}), false),
        (json!({"includes": {"minKernel": "4.100"}}), true),
        (json!({"excludes": {"minKernel": "6.12"}}), false),
        (json!({"excludes": {"minKernel": "6.13"}}), true),
        (json!({"includes": {"arches": ["amd64"], "minKernel": "7.0"}}), false),
        (json!({"includes": {"arches": ["amd64"]}, "excludes": {"caps": ["CAP_KILL"]}}), false),
    ] {
        check_holds("amd64 6.12", &fields, expected);
    }
}

#[test]
fn architectures_have_the_names_that_docker_and_podman_compare() {
    for (node, name) in [
        ("amd64", "amd64"),
        ("arm64", "arm64"),
        ("arm", "arm"),
        ("386", "x86"),
        ("ppc64le", "ppc64le"),
        ("riscv64", "riscv64"),
        ("s390x", "s390x"),
        ("loong64", "loong64"),
        ("loong64", "loongarch64"),
    ] {
        let node = format!("{node} 6.12");
        check_holds(&node, &json!({"includes": {"arches": [name]}}), true);
        check_holds(&node, &json!({"excludes": {"arches": [name]}}), false);
        check_holds(&node, &json!({"includes": {"arches": ["mips"]}}), false);
    }
    assert!(
        Architecture::ALL
            .iter()
            .all(|architecture| names(*architecture).iter().all(|name| ARCHES.contains(name)))
    );
}

/// Every condition alone and with every other, against a reading of its own of what Docker does.
#[test]
fn conditions_hold_together_as_a_naive_reading_has_them() {
    const ARCHES: &[&[&str]] = &[&[], &["amd64"], &["s390x"], &["arm64", "amd64"]];
    const CAPS: &[&[&str]] =
        &[&[], &["CAP_KILL"], &["CAP_BPF"], &["CAP_BPF", "CAP_KILL"], &["CAP_BPF", "CAP_SYSLOG"]];
    const KERNELS: &[Option<&str>] = &[None, Some("4.8"), Some("6.12"), Some("7.0")];
    let mut filters = Vec::new();
    for arches in ARCHES {
        for caps in CAPS {
            filters.extend(KERNELS.iter().map(|kernel| (*arches, *caps, *kernel)));
        }
    }
    let mut rules = Vec::new();
    let mut expected = Vec::new();
    for includes in &filters {
        for excludes in &filters {
            let [includes_json, excludes_json] = [includes, excludes]
                .map(|(arches, caps, kernel)| json!({"arches": arches, "caps": caps, "minKernel": kernel}));
            let name = format!("rule{}", rules.len());
            rules.push(json!({
                "names": [name],
                "action": "SCMP_ACT_LOG",
                "includes": includes_json,
                "excludes": excludes_json,
            }));
            let (arches, caps, kernel) = *includes;
            let is_included = (arches.is_empty() || arches.contains(&"amd64"))
                && !caps.contains(&"CAP_BPF")
                && kernel != Some("7.0");
            let (arches, caps, kernel) = *excludes;
            let is_excluded = arches.contains(&"amd64")
                || caps.contains(&"CAP_KILL")
                || matches!(kernel, Some("4.8" | "6.12"));
            if is_included && !is_excluded {
                expected.push(name);
            }
        }
    }
    assert_eq!(rules.len(), 6_400);
    let text = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}).to_string();
    let resolved = check(&text, Platform::example("amd64 6.12")).resolved.unwrap();
    let resolved: Value = serde_json::from_str(&resolved).unwrap();
    let names =
        resolved["syscalls"].as_array().unwrap().iter().map(|rule| rule["names"][0].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), expected);
}

#[test]
fn a_condition_that_nobody_understands_is_refused() {
    for (fields, expected) in [
        (
            json!({"includes": {"caps": ["CAP_SYS_ADMN"]}}),
            "unknown-capability $.syscalls[0].includes.caps[0]",
        ),
        (json!({"excludes": {"caps": ["SYS_ADMIN"]}}), "unknown-capability $.syscalls[0].excludes.caps[0]"),
        (
            json!({"excludes": {"caps": ["cap_sys_admin"]}}),
            "unknown-capability $.syscalls[0].excludes.caps[0]",
        ),
        (
            json!({"includes": {"arches": ["x86_64"]}}),
            "unknown-architecture $.syscalls[0].includes.arches[0]",
        ),
        (json!({"excludes": {"arches": ["386"]}}), "unknown-architecture $.syscalls[0].excludes.arches[0]"),
        (json!({"includes": {"minKernel": ""}}), "unknown-kernel $.syscalls[0].includes.minKernel"),
        (json!({"includes": {"minKernel": "4"}}), "unknown-kernel $.syscalls[0].includes.minKernel"),
        (json!({"excludes": {"minKernel": "4.8.1"}}), "unknown-kernel $.syscalls[0].excludes.minKernel"),
        (json!({"includes": {"minKernel": "4.8-rc1"}}), "unknown-kernel $.syscalls[0].includes.minKernel"),
        (json!({"includes": {"minKernel": "+4.8"}}), "unknown-kernel $.syscalls[0].includes.minKernel"),
        (json!({"includes": {"minKernel": 4.8}}), "wrong-type $.syscalls[0].includes.minKernel"),
        (json!({"includes": {"caps": "CAP_KILL"}}), "wrong-type $.syscalls[0].includes.caps"),
        (json!({"includes": ["CAP_KILL"]}), "wrong-type $.syscalls[0].includes"),
        (json!({"excludes": {"arches": [1]}}), "wrong-type $.syscalls[0].excludes.arches[0]"),
        (json!({"includes": {"cap": ["CAP_KILL"]}}), "unknown-condition $.syscalls[0].includes.cap"),
        (json!({"errno": "EPREM"}), "unknown-errno $.syscalls[0].errno"),
        (json!({"errno": 1}), "wrong-type $.syscalls[0].errno"),
    ] {
        check_findings("amd64 6.12", &with_rule(&fields), &[expected]);
    }
    let default = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "E"});
    check_findings("amd64 6.12", &default, &["unknown-errno $.defaultErrno"]);
}

#[test]
fn a_rule_that_is_left_out_is_checked_nevertheless() {
    let elsewhere = json!({"includes": {"arches": ["s390x"]}, "action": "SCMP_ACT_ERROR"});
    check_findings("amd64 6.12", &with_rule(&elsewhere), &["unknown-action $.syscalls[0].action"]);
    // But it undoes no other rule.
    let text = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["clone"], "action": "SCMP_ACT_LOG"},
        {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}},
    ]});
    check_findings("amd64 6.12", &text, &[]);
    check_findings("s390x 6.12", &text, &["clashing-rules $.syscalls[1].names[0]"]);
}

/// What runc calls when the filter is in force.
const STARTUP: &[&str] =
    &["close", "execve", "exit_group", "fstatfs", "futex", "getdents64", "openat", "write"];

#[test]
fn a_textual_error_counts_more_than_a_number() {
    let text = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "defaultErrno": "ENOSYS", "syscalls": [
        {"names": STARTUP, "action": "SCMP_ACT_ALLOW"},
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "errno": "EPERM"},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": ""},
        {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errno": "13"},
    ]});
    let expected = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        {"names": STARTUP, "action": "SCMP_ACT_ALLOW"},
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
        {"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
    ]});
    check_resolved("amd64 6.12", &text, &expected);
    check_findings("amd64 6.12", &text, &[]);
}

#[test]
fn a_refusal_that_is_lost_to_capabilities_is_told() {
    for (default, action, fields, expected) in [
        (
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            json!({"includes": {"caps": ["CAP_BPF"]}}),
            &["lost-refusal $.syscalls[0]"][..],
        ),
        (
            "SCMP_ACT_LOG",
            "SCMP_ACT_KILL",
            json!({"excludes": {"caps": ["CAP_KILL"]}}),
            &["lost-refusal $.syscalls[0]"],
        ),
        ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", json!({"excludes": {"caps": ["CAP_BPF"]}}), &[]),
        ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", json!({"includes": {"arches": ["arm"]}}), &[]),
        (
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            json!({"includes": {"arches": ["arm"], "caps": ["CAP_BPF"]}}),
            &[],
        ),
        (
            "SCMP_ACT_ALLOW",
            "SCMP_ACT_ERRNO",
            json!({"includes": {"caps": ["CAP_BPF"]}, "excludes": {"arches": ["amd64"]}}),
            &[],
        ),
        ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", json!({"includes": {"caps": ["CAP_BPF"]}}), &[]),
        ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", json!({"includes": {"caps": ["CAP_BPF"]}}), &[]),
    ] {
        let mut rule = json!({"names": ["bpf"], "action": action});
        rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let text = json!({"defaultAction": default, "syscalls": [rule]});
        check_findings("amd64 6.12", &text, expected);
    }
}

#[test]
fn what_is_larger_on_the_node_than_a_config_map_is_refused() {
    let names = |count| vec!["read"; count];
    let text = |count| {
        let rule = json!({"names": names(count), "action": "SCMP_ACT_LOG", "errno": ""});
        json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrno": "EPERM", "syscalls": [rule]})
    };
    let longest = check(&text(50_000).to_string(), Platform::EXAMPLE).resolved.unwrap();
    assert!(longest.len() <= crate::seccomp::LARGEST);
    let too_long = text(80_000).to_string();
    assert!(too_long.len() < crate::seccomp::LARGEST);
    let Checked { findings, resolved } = check(&too_long, Platform::EXAMPLE);
    assert!(shown(&findings).contains(&"filter-too-large $".to_owned()), "{findings:?}");
    assert_eq!(resolved, None);
}
