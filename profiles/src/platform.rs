//! What of a node decides what a document means there.
//!
//! Invariant: an [`Architecture`] is one that Kubernetes nodes have and for which seccomp filters can be
//! made.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kind of machine that a document is read for. Written `<architecture> with kernel <kernel>`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Platform {
    /// Of its programs, by default.
    pub architecture: Architecture,
    /// The release of its kernel.
    pub kernel: Kernel,
}

/// Whether a node has AppArmor.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AppArmor {
    /// It has.
    Enabled,
    /// It has none: bundles of AppArmor texts are for other nodes.
    Disabled,
    /// It may have it, but its agent can't see it: bundles of AppArmor texts are for other nodes.
    Unknown,
}

#[cfg(test)]
impl Platform {
    /// A node as most are.
    pub(crate) const EXAMPLE: Self =
        Self { architecture: Architecture::Amd64, kernel: Kernel { major: 6, minor: 12 } };

    /// A node, such as `amd64 6.12`.
    pub(crate) fn example(text: &str) -> Self {
        let (architecture, kernel) = text.split_once(' ').unwrap();
        Self { architecture: architecture.parse().unwrap(), kernel: kernel.parse().unwrap() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with kernel {}", self.architecture, self.kernel)
    }
}

/// Makes the enumeration of architectures from a table: Go's name, Rust's target, seccomp's word.
macro_rules! architectures {
    ($($(#[$meaning:meta])+ $name:ident = $go:literal, $target:meta, $scmp:literal;)+) => {
        /// The architectures of nodes. Written as Go, and so Kubernetes, calls them.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Architecture {
            $($(#[$meaning])+ $name,)+
        }

        impl Architecture {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name that Go has for it, which is that of the label `kubernetes.io/arch`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $go,)+
                }
            }

            /// The word that seccomp documents have for it.
            pub(crate) fn scmp(self) -> &'static str {
                match self {
                    $(Self::$name => $scmp,)+
                }
            }

            /// That of this program; none if it is not in the table.
            #[must_use]
            pub fn of_this_program() -> Option<Self> {
                [$((cfg!($target), Self::$name)),+].into_iter().find_map(|(is_it, it)| is_it.then_some(it))
            }
        }
    };
}

architectures! {
    /// x86 with 64 bits.
    Amd64 = "amd64", target_arch = "x86_64", "SCMP_ARCH_X86_64";
    /// ARM with 64 bits.
    Arm64 = "arm64", target_arch = "aarch64", "SCMP_ARCH_AARCH64";
    /// ARM with 32 bits.
    Arm = "arm", target_arch = "arm", "SCMP_ARCH_ARM";
    /// x86 with 32 bits.
    I386 = "386", target_arch = "x86", "SCMP_ARCH_X86";
    /// POWER, little-endian.
    Ppc64le = "ppc64le", all(target_arch = "powerpc64", target_endian = "little"), "SCMP_ARCH_PPC64LE";
    /// RISC-V with 64 bits.
    Riscv64 = "riscv64", target_arch = "riscv64", "SCMP_ARCH_RISCV64";
    /// IBM Z.
    S390x = "s390x", target_arch = "s390x", "SCMP_ARCH_S390X";
    /// `LoongArch` with 64 bits.
    Loong64 = "loong64", target_arch = "loongarch64", "SCMP_ARCH_LOONGARCH64";
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(text: &str) -> Result<Self, UnknownArchitecture> {
        let found = Self::ALL.iter().copied().find(|architecture| architecture.as_str() == text);
        found.ok_or_else(|| UnknownArchitecture(text.to_owned()))
    }
}

/// A text that names no architecture of nodes.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is no architecture of nodes: use amd64, arm64, arm, 386, ppc64le, riscv64, s390x or loong64")]
pub struct UnknownArchitecture(String);

/// The release of a kernel, as far as documents ask for it. Written `<major>.<minor>`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kernel {
    /// Such as the 6 of 6.12.
    pub major: u32,
    /// Such as the 12 of 6.12.
    pub minor: u32,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Kernel {
    type Err = UnknownKernel;

    /// Reads a release such as `6.12`, `6.12.3` or `6.12.0-9-amd64` (uname(2)); what follows the minor number
    /// does not matter.
    fn from_str(text: &str) -> Result<Self, UnknownKernel> {
        let unknown = || UnknownKernel(text.to_owned());
        let number = |text: &str| {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().map_err(|_| unknown())
        };
        let (major, rest) = text.split_once('.').ok_or_else(unknown)?;
        let major = major.parse().map_err(|_| unknown())?;
        Ok(Self { major, minor: number(rest)? })
    }
}

/// A text that is no kernel's release.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is no release of a kernel: it starts with two numbers, as 6.12 does")]
pub struct UnknownKernel(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_starts_with_two_numbers() {
        for (text, expected) in [
            ("6.12", Some((6, 12))),
            ("6.1.0-13-cloud-amd64", Some((6, 1))),
            ("5.15-rc1", Some((5, 15))),
            ("4.18.0+", Some((4, 18))),
            ("6", None),
            ("6.", None),
            (".1", None),
            ("", None),
            ("v6.1", None),
            ("6.99999999999", None),
        ] {
            let expected = expected.map(|(major, minor)| Kernel { major, minor });
            assert_eq!(text.parse().ok(), expected, "{text:?}");
        }
        assert!("5.9".parse::<Kernel>().unwrap() < "5.10".parse().unwrap());
    }

    #[test]
    fn an_architecture_is_told_by_its_go_name() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.as_str().parse(), Ok(*architecture));
        }
        assert!("x86_64".parse::<Architecture>().is_err());
        assert!(Architecture::of_this_program().is_some());
    }
}
