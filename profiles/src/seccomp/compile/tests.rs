//! Claims about filters: their size, and what they are made of.

mod kernel;
mod meaning;

use super::*;
use crate::platform::Platform;
use crate::seccomp::document::Reader;
use crate::seccomp::resolve::resolve;

/// What `text` is on a node of `platform`.
fn resolved(text: &str, platform: Platform) -> LinuxSeccomp<'_> {
    let mut reader = Reader::new(text);
    let written = reader.read().unwrap();
    resolve(&mut reader, written, platform)
}

/// The sizes of the filter of a document with this default action and architectures that allows `names`:
/// libseccomp's program and what runc puts before it.
fn size(default: &str, architectures: &[&str], names: &[&str], node: Architecture) -> (usize, usize) {
    let text = format!(
        r#"{{"defaultAction":"{default}","architectures":{architectures:?},"syscalls":[{{"names":{names:?},"action":"SCMP_ACT_ALLOW"}}]}}"#
    );
    let platform = Platform { architecture: node, ..Platform::EXAMPLE };
    let document = resolved(&text, platform);
    let filter = compile(&document, node).unwrap();
    (filter.program.len(), filter.prelude)
}

#[test]
fn what_runc_adds_is_counted() {
    let x86 = &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    for (default, architectures, names, node, expected) in [
        ("SCMP_ACT_LOG", x86.as_slice(), ["read", "open"].as_slice(), Architecture::Amd64, 0),
        ("SCMP_ACT_TRACE", x86, &["open"], Architecture::Amd64, 0),
        ("SCMP_ACT_ERRNO", &[], &[], Architecture::Amd64, 5),
        ("SCMP_ACT_ERRNO", &[], &["open"], Architecture::Amd64, 9),
        ("SCMP_ACT_KILL", &x86[..2], &["open"], Architecture::Amd64, 13),
        ("SCMP_ACT_ERRNO", x86, &["open"], Architecture::Amd64, 14),
        ("SCMP_ACT_ERRNO", &[], &["close"], Architecture::S390x, 10),
        ("SCMP_ACT_ERRNO", &["SCMP_ARCH_ARM"], &["close"], Architecture::Arm64, 12),
    ] {
        let (_, prelude) = size(default, architectures, names, node);
        assert_eq!(prelude, expected, "{default} {architectures:?} {names:?} {node}");
    }
}

#[test]
fn a_node_has_its_own_architecture_in_every_filter() {
    for node in [Architecture::Amd64, Architecture::Arm64, Architecture::Ppc64le, Architecture::S390x] {
        let bare = size("SCMP_ACT_ERRNO", &[], &["close"], node);
        assert_eq!(size("SCMP_ACT_ERRNO", &[node.scmp()], &["close"], node), bare, "{node}");
    }
}

#[test]
fn what_does_nothing_is_not_compiled() {
    let bare = size("SCMP_ACT_ERRNO", &[], &["close"], Architecture::Amd64);
    for names in [&["close", "close"], &["close", "no_such_call"], &["close", "chown32"]] {
        assert_eq!(size("SCMP_ACT_ERRNO", &[], names, Architecture::Amd64), bare, "{names:?}");
    }
}

#[test]
fn rules_that_libseccomp_may_not_end_with_are_not_compiled() {
    let rule = |operator: &str| {
        format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":1,"op":"{operator}"}},{{"index":1,"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    for (operators, is_tangled) in
        [(["SCMP_CMP_GT", "SCMP_CMP_EQ"], true), (["SCMP_CMP_NE", "SCMP_CMP_EQ"], false)]
    {
        let rules = operators.map(rule).join(",");
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rules}]}}"#);
        let document = resolved(&text, Platform::EXAMPLE);
        let compiled = compile(&document, Architecture::Amd64);
        assert_eq!(matches!(compiled, Err(Failure::Tangled(_))), is_tangled, "{text}");
    }
}
