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
    let rules = Rules::of(&document, node).unwrap();
    (rules.whole().unwrap().program.len(), rules.prelude())
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

/// A rule that allows `name` where all conditions hold: an argument, an operator and a value each.
fn rule(name: &str, conditions: &[(u8, &str, u64)]) -> String {
    let conditions: Vec<String> = conditions
        .iter()
        .map(|(index, operator, value)| {
            format!(r#"{{"index":{index},"value":{value},"valueTwo":{value},"op":"SCMP_CMP_{operator}"}}"#)
        })
        .collect();
    format!(r#"{{"names":["{name}"],"action":"SCMP_ACT_ALLOW","args":[{}]}}"#, conditions.join(","))
}

fn with_rules(architectures: &[&str], rules: &[String]) -> String {
    let rules = rules.join(",");
    format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":{architectures:?},"syscalls":[{rules}]}}"#)
}

#[test]
fn rules_that_libseccomp_would_not_end_with_are_not_compiled() {
    const HIGH: u64 = 1 << 32;
    let many = |count: u64, index, operator, unit| -> Vec<String> {
        (1..=count).map(|value| rule("read", &[(index, operator, unit * value)])).collect()
    };
    let five = rule("read", &[0, 1, 2, 3, 4].map(|index| (index, "EQ", 1)));
    let two = |operators: [&str; 2]| {
        [(operators[0], 1), (operators[1], 1 << 32)]
            .map(|(operator, value)| rule("read", &[(0, operator, 5), (1, "EQ", value)]))
    };
    for (rules, is_tangled) in [
        // Two ways to the second argument, once and twice.
        (two(["EQ", "GT"]).to_vec(), false),
        (two(["NE", "MASKED_EQ"]).to_vec(), false),
        (two(["NE", "NE"]).to_vec(), true),
        (two(["GE", "LT"]).to_vec(), true),
        // By size in the last argument, as the runtime sorts them.
        ((1..20).map(|value| rule("read", &[(1, "GT", value), (0, "EQ", value)])).collect(), false),
        // For another system call.
        (
            vec![rule("read", &[(0, "NE", 5), (1, "EQ", 1)]), rule("write", &[(0, "NE", 5), (1, "EQ", 1)])],
            false,
        ),
        // The top of the tree, times itself.
        (many(300, 1, "EQ", 1), false),
        (many(100, 1, "EQ", HIGH), false),
        (many(200, 1, "EQ", HIGH), true),
        (many(100, 1, "GT", HIGH), true),
        (many(150, 1, "GT", 1), false),
        ([many(3, 5, "EQ", HIGH), vec![five.clone()]].concat(), false),
        ([many(20, 5, "EQ", 1), vec![five.clone()]].concat(), true),
        ([vec![five.clone()], many(20, 5, "EQ", 1)].concat(), false),
        // A mask of 0 is no node, so the next argument stands at the top.
        (
            (1..20)
                .map(|value| rule("read", &[(0, "MASKED_EQ", 0), (5, "EQ", value)]))
                .chain([five])
                .collect(),
            true,
        ),
        // A call that is also part of another.
        (many(120, 1, "EQ", HIGH).iter().map(|rule| rule.replace("read", "socket")).collect(), true),
        (
            many(9, 5, "EQ", HIGH)
                .iter()
                .map(|rule| rule.replace("read", "socketcall"))
                .chain([rule("socket", &[1, 2, 3].map(|index| (index, "EQ", 1)))])
                .collect(),
            true,
        ),
    ] {
        let text = with_rules(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], &rules);
        let document = resolved(&text, Platform::EXAMPLE);
        let rules = Rules::of(&document, Architecture::Amd64);
        assert_eq!(matches!(rules, Err(Failure::Tangled(_))), is_tangled, "{text}");
        if let Ok(rules) = rules {
            // That they are compiled is that libseccomp comes to an end.
            rules.by_call().unwrap();
        }
    }
}

#[test]
fn what_is_taken_to_fit_is_never_larger() {
    let x86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let names: Vec<String> = (0..330)
        .filter_map(|number| ScmpSyscall::from(number).get_name_by_arch(ScmpArch::X8664).ok())
        .collect();
    let bare = |errno: fn(usize) -> usize| -> Vec<String> {
        let rule = |(index, name): (usize, &String)| {
            let errno = errno(index);
            format!(r#"{{"names":["{name}"],"action":"SCMP_ACT_ERRNO","errnoRet":{errno}}}"#)
        };
        names.iter().enumerate().map(rule).collect()
    };
    let with_conditions = |operator: &str, unit: u64, calls: u8| -> Vec<String> {
        let call = |value: u8| names[usize::from(value % calls)].as_str();
        (2..60_u8).map(|value| rule(call(value), &[(1, operator, unit * u64::from(value))])).collect()
    };
    for rules in [
        bare(|_| 2),
        bare(|index| 2 + index % 7),
        with_conditions("EQ", 1, 1),
        with_conditions("EQ", 1 << 32, 60),
        with_conditions("GT", (1 << 32) + 1, 60),
        [bare(|_| 2), with_conditions("GT", (1 << 32) + 1, 60)].concat(),
        [bare(|_| 2)[60..].to_vec(), with_conditions("GT", (1 << 32) + 1, 60)].concat(),
        [bare(|index| 2 + index % 50)[..200].to_vec(), with_conditions("NE", 1, 20)].concat(),
    ] {
        for architectures in [&x86[..1], &x86] {
            let text = with_rules(architectures, &rules);
            let document = resolved(&text, Platform::EXAMPLE);
            let rules = Rules::of(&document, Architecture::Amd64).unwrap();
            let filters = rules.by_call().unwrap();
            let Ok(whole) = rules.whole() else { continue };
            let size = whole.program.len() + rules.prelude();
            assert!(!rules.is_small(&filters, size - 1), "{size}: {text}");
        }
    }
}
