//! The names of system calls: which ones libseccomp knows, which ones are newer, and which one was meant.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use libseccomp::{ScmpArch, ScmpSyscall, ScmpVersion};

use crate::seccomp::vocabulary::suggestion;

/// System calls that are newer than libseccomp 2.5.4, with the release of Linux that brought them (the names
/// are what `src/syscalls.csv` of libseccomp 2.6.1 has more; distributions add some of them to older
/// versions).
const NEWER: &[(&str, &str)] = &[
    ("cachestat", "6.5"),
    ("fchmodat2", "6.6"),
    ("file_getattr", "6.17"),
    ("file_setattr", "6.17"),
    ("futex_requeue", "6.7"),
    ("futex_wait", "6.7"),
    ("futex_wake", "6.7"),
    ("getxattrat", "6.13"),
    ("listmount", "6.8"),
    ("listns", "6.19"),
    ("listxattrat", "6.13"),
    ("lsm_get_self_attr", "6.8"),
    ("lsm_list_modules", "6.8"),
    ("lsm_set_self_attr", "6.8"),
    ("map_shadow_stack", "6.6"),
    ("mseal", "6.10"),
    ("open_tree_attr", "6.15"),
    ("removexattrat", "6.13"),
    ("riscv_hwprobe", "6.4"),
    ("rseq_slice_yield", "7.0"),
    ("setxattrat", "6.13"),
    ("statmount", "6.8"),
    ("uprobe", "6.18"),
    ("uretprobe", "6.11"),
];

/// What a name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    /// A system call of some architecture. Where it does not exist, a rule for it does nothing, and nobody
    /// minds.
    Known,
    /// A system call that came with this release of Linux, and that libseccomp does not know.
    Newer(&'static str),
    /// None that anybody here knows of.
    Unknown,
}

/// Tells what `name` is.
pub(crate) fn tell(name: &str) -> Name {
    if ScmpSyscall::from_name(name).is_ok() {
        return Name::Known;
    }
    let newer = NEWER.iter().find(|(newer, _)| *newer == name);
    newer.map_or(Name::Unknown, |(_, release)| Name::Newer(release))
}

/// The name that an unknown one was probably meant to be. It takes up to 1 ms to find.
pub(crate) fn meant(name: &str) -> Option<&'static str> {
    suggestion(name, known())
}

/// The version of libseccomp, as `2.5.4`.
pub(crate) fn version() -> String {
    ScmpVersion::current().map_or_else(
        |_| "of an unknown version".to_owned(),
        |ScmpVersion { major, minor, micro }| format!("{major}.{minor}.{micro}"),
    )
}

/// Names that a misspelt one may have meant.
fn known() -> impl Iterator<Item = &'static str> {
    /// No architecture here counts further. libseccomp has no list, but tells the name of a number.
    const HIGHEST: i32 = 600;
    static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        [ScmpArch::X8664, ScmpArch::X86, ScmpArch::Arm, ScmpArch::Aarch64]
            .into_iter()
            .flat_map(|architecture| {
                (0..HIGHEST)
                    .filter_map(move |number| ScmpSyscall::from(number).get_name_by_arch(architecture).ok())
            })
            .collect()
    });
    NAMES.iter().map(String::as_str).chain(NEWER.iter().map(|(name, _)| *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_from_a_typo() {
        for (name, expected) in [
            ("read", Name::Known),
            ("chown32", Name::Known),
            ("s390_pci_mmio_read", Name::Known),
            ("mkdri", Name::Unknown),
            ("", Name::Unknown),
            ("read\0", Name::Unknown),
        ] {
            assert_eq!(tell(name), expected, "{name}");
        }
        assert!(matches!(tell("rseq_slice_yield"), Name::Newer(_) | Name::Known));
        for (name, expected) in [
            ("mkdri", Some("mkdir")),
            ("Ptrace", Some("ptrace")),
            ("cache_stat", Some("cachestat")),
            ("banana", None),
            ("", None),
        ] {
            assert_eq!(meant(name), expected, "{name}");
        }
    }
}
