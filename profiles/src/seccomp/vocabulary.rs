//! The words that a seccomp document may use where the runtimes allow no others.
//!
//! From `opencontainers/runtime-spec` (config-linux.md, "Seccomp") and `opencontainers/runc`
//! (libcontainer/seccomp/config.go). A word that runc does not know makes it refuse to start the container;
//! crun knows the same ones.

use crate::suggestion;

/// Actions.
pub(crate) const ACTIONS: &[&str] = &[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];

/// Actions whose `errnoRet` means something.
pub(crate) const WITH_ERRNO: &[&str] = &["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"];

/// Comparisons of an argument.
pub(crate) const OPERATORS: &[&str] = &[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

/// Architectures.
pub(crate) const ARCHITECTURES: &[&str] = &[
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
];

/// Flags of seccomp(2).
pub(crate) const FLAGS: &[&str] =
    &["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];

/// Flags that the specification has, and runc since 1.5.
pub(crate) const RECENT_FLAGS: &[&str] = &["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"];

/// What is left out before a word by mistake, or put there: `ALLOW`, `SYS_ADMIN`, `__NR_read`.
const PREFIXES: &[&str] =
    &["scmp_act_", "scmp_arch_", "scmp_cmp_", "seccomp_filter_flag_", "cap_", "__nr_", "sys_"];

/// What others call the same.
const SYNONYMS: &[(&str, &str)] =
    &[("amd64", "x86_64"), ("arm64", "aarch64"), ("386", "x86"), ("i386", "x86"), ("deny", "errno")];

/// Whether both mean the same, but for case, a prefix, or who says it.
fn is_same_word(word: &str, candidate: &str) -> bool {
    let stem = |word: &str| {
        let stem = PREFIXES.iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(word);
        let synonym = SYNONYMS.iter().find(|(other, _)| *other == stem);
        synonym.map_or(stem, |(_, usual)| usual).to_owned()
    };
    let (word, candidate) = (word.to_ascii_lowercase(), stem(&candidate.to_ascii_lowercase()));
    word == candidate || stem(&word) == candidate
}

/// The word that `word` was probably meant to be.
pub(crate) fn suggestion<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let words: Vec<&str> = words.into_iter().collect();
    let same = words.iter().copied().find(|candidate| is_same_word(word, candidate));
    same.or_else(|| suggestion::word(word, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], expected: &[(&str, Option<&str>)]) {
        for (word, expected) in expected {
            assert_eq!(suggestion(word, words.iter().copied()), *expected, "{word}");
        }
    }

    #[test]
    fn a_typo_is_understood_and_nonsense_is_not() {
        check(
            ACTIONS,
            &[
                ("SCMP_ACT_ALOW", Some("SCMP_ACT_ALLOW")),
                ("scmp_act_errno", Some("SCMP_ACT_ERRNO")),
                ("SCMP_ACT_LGO", Some("SCMP_ACT_LOG")),
                ("banana", None),
                ("", None),
            ],
        );
    }

    #[test]
    fn what_others_say_is_understood() {
        check(ACTIONS, &[("allow", Some("SCMP_ACT_ALLOW")), ("SCMP_ACT_DENY", Some("SCMP_ACT_ERRNO"))]);
        check(
            ARCHITECTURES,
            &[
                ("x86_64", Some("SCMP_ARCH_X86_64")),
                ("amd64", Some("SCMP_ARCH_X86_64")),
                ("SCMP_ARCH_AMD64", Some("SCMP_ARCH_X86_64")),
                ("SCMP_ARCH_ARM64", Some("SCMP_ARCH_AARCH64")),
            ],
        );
        check(&["CAP_SYS_ADMIN", "CAP_CHOWN"], &[("SYS_ADMIN", Some("CAP_SYS_ADMIN"))]);
        check(&["amd64", "arm64"], &[("x86_64", Some("amd64")), ("aarch64", Some("arm64"))]);
        check(
            &["kexec_load"],
            &[("sys_kexec_load", Some("kexec_load")), ("__NR_kexec_load", Some("kexec_load"))],
        );
    }
}
