//! Brings a document in Docker's or Podman's format into the runtimes' own, for one kind of node.
//!
//! The rules are those of Docker (moby/profiles, `seccomp/seccomp_linux.go`) and of Podman and CRI-O
//! (containers/common, `pkg/seccomp/seccomp_linux.go`), and where they differ, it is said here. A rule of
//! which a condition is not met does not exist. Conditions on capabilities are asked of
//! [`DEFAULT_CAPABILITIES`]: a file on a node is the same for all containers, and a container with these is
//! allowed just what the author wrote for it.
//!
//! Invariant: what is read is never guessed. A word that nobody knows is an error: in `excludes`, a misspelt
//! one would have the rule hold always.

use crate::diagnostic::Code;
use crate::findings::excerpt;
use crate::platform::{Architecture, Kernel, Platform};
use crate::seccomp::document::{ArchMap, Filter, LinuxSeccomp, Reader, Unmet, Word, Written, WrittenRule};
use crate::seccomp::errno;

/// The capabilities that containerd (pkg/oci/spec.go) and Docker (daemon/pkg/oci/caps/defaults.go) give to
/// containers if nothing is said. CRI-O gives fewer.
pub(crate) const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The others that Linux has (capabilities(7), Linux 6.18).
const OTHER_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// The names that libseccomp has for architectures, which Docker and Podman compare `arches` with
/// (libseccomp-golang, seccomp.go). Docker's name of `LoongArch` is its second here.
const ARCHES: &[&str] = &[
    "amd64",
    "arm",
    "arm64",
    "loong64",
    "loongarch64",
    "m68k",
    "mips",
    "mips64",
    "mips64n32",
    "mipsel",
    "mipsel64",
    "mipsel64n32",
    "parisc",
    "parisc64",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv64",
    "s390",
    "s390x",
    "sh",
    "sheb",
    "x32",
    "x86",
];

/// What `written` is on a node of `platform`. What is wrong with it is among the findings of `reader`.
pub(crate) fn resolve<'a>(
    reader: &mut Reader<'a>,
    written: Written<'a>,
    platform: Platform,
) -> LinuxSeccomp<'a> {
    let mut resolver = Resolver { reader, platform, document: written.plain };
    if let Some(errno) = written.default_errno.and_then(|word| resolver.errno(&word)) {
        resolver.document.default_errno = Some(errno);
    }
    if let Some(map) = written.arch_map {
        resolver.architectures(map);
    }
    for rule in written.rules {
        resolver.rule(rule);
    }
    resolver.document
}

struct Resolver<'r, 'a> {
    reader: &'r mut Reader<'a>,
    platform: Platform,
    document: LinuxSeccomp<'a>,
}

impl<'a> Resolver<'_, 'a> {
    /// The first entry for the node's architecture counts. If there is none, the filter is for that
    /// architecture alone, as without `archMap`: other programs are killed.
    fn architectures(&mut self, map: ArchMap<'a>) {
        if !self.document.architectures.is_empty() {
            let message = "\"architectures\" and \"archMap\" are both there, which Docker and CRI-O refuse";
            self.reader.find(Code::ExclusiveFields, &map.at, message.to_owned(), "keep one of them");
        }
        let native = self.platform.architecture.scmp();
        let mut is_found = false;
        for entry in map.entries {
            let Some(architecture) = entry.architecture else {
                let message = "the entry has no \"architecture\"".to_owned();
                self.reader.find(Code::UnknownArchitecture, &entry.at, message, "add it");
                continue;
            };
            let is_own = !is_found && architecture.text == native;
            is_found |= is_own;
            let LinuxSeccomp { architectures, left_out, .. } = &mut self.document;
            let words = if is_own { architectures } else { &mut left_out.architectures };
            words.push(architecture);
            words.extend(entry.others);
        }
        if !is_found {
            let message = format!("no entry is for {native}, so programs of no other architecture can run");
            self.reader.find(
                Code::MissingArchitecture,
                &map.at,
                message,
                "add an entry for the architectures of all nodes",
            );
        }
    }

    fn rule(&mut self, written: WrittenRule<'a>) {
        let WrittenRule { plain: mut rule, name, errno, includes, excludes } = written;
        let errors = self.reader.findings.errors;
        if let Some(name) = name {
            if !rule.names.is_empty() {
                let message = "\"name\" and \"names\" are both there, which Docker and CRI-O refuse";
                self.reader.find(Code::ExclusiveFields, &name.at, message.to_owned(), "use \"names\" alone");
            }
            rule.names.push(name);
        }
        if let Some(word) = errno
            && let Some(errno) = self.errno(&word)
        {
            rule.errno = Some((errno, word.at));
        }
        let (includes, excludes) = (self.unmet(&includes, false), self.unmet(&excludes, true));
        rule.is_readable &= errors == self.reader.findings.errors;
        let unmet = if includes == Some(Unmet::Node) { includes } else { excludes.or(includes) };
        match unmet {
            Some(unmet) if rule.is_readable => self.document.left_out.rules.push((rule, unmet)),
            _ => self.document.rules.push(rule),
        }
    }

    /// What the rule would need that `filter` belongs to, if it does not hold for that. Everything in
    /// `includes` has to be so, and nothing in `excludes`.
    fn unmet(&mut self, filter: &Filter<'a>, is_exclusion: bool) -> Option<Unmet> {
        self.arches(&filter.arches);
        self.capabilities(&filter.caps);
        let own = names(self.platform.architecture);
        let is_own = filter.arches.iter().any(|word| own.contains(&word.text.as_str()));
        let architecture = (!filter.arches.is_empty()).then_some(is_own);
        let least = filter.min_kernel.as_ref().and_then(|word| self.kernel(word));
        let kernel = least.map(|least| self.platform.kernel >= least);
        let is_default = |word: &Word<'a>| DEFAULT_CAPABILITIES.contains(&word.text.as_str());
        if [architecture, kernel].contains(&Some(is_exclusion)) {
            return Some(Unmet::Node);
        }
        let is_unmet = filter.caps.iter().any(|word| is_default(word) == is_exclusion);
        is_unmet.then_some(Unmet::Capabilities)
    }

    /// Docker knows `minKernel`, Podman and CRI-O do not. It has to be two numbers, unlike the release of a
    /// kernel.
    fn kernel(&mut self, word: &Word<'a>) -> Option<Kernel> {
        let kernel = word.text.parse().ok().filter(|kernel: &Kernel| kernel.to_string() == word.text);
        if kernel.is_none() {
            let message = format!("{:?} is no version of a kernel", excerpt(&word.text));
            let help = "write two numbers, as in \"4.8\"";
            self.reader.find(Code::UnknownKernel, &word.at, message, help);
        }
        kernel
    }

    /// Podman and CRI-O prefer the text to the number beside it; Docker knows the number only.
    fn errno(&mut self, word: &Word<'a>) -> Option<u64> {
        let number = errno::number(&word.text);
        if number.is_none() {
            let help = "write a name such as EPERM, or use a number";
            self.unknown(word, "error", errno::names(), Code::UnknownErrno, help);
        }
        number
    }

    fn arches(&mut self, words: &[Word<'a>]) {
        let help = "use Docker's names: amd64 for x86_64, arm64 for aarch64, x86 for i386";
        for word in words.iter().filter(|word| !ARCHES.contains(&word.text.as_str())) {
            self.unknown(word, "architecture", ARCHES.iter().copied(), Code::UnknownArchitecture, help);
        }
    }

    fn capabilities(&mut self, words: &[Word<'a>]) {
        let known = || DEFAULT_CAPABILITIES.iter().chain(OTHER_CAPABILITIES).copied();
        let help = "write it as capabilities(7) does, such as CAP_SYS_ADMIN";
        for word in words.iter().filter(|word| !known().any(|known| known == word.text)) {
            self.unknown(word, "capability", known(), Code::UnknownCapability, help);
        }
    }

    fn unknown(
        &mut self,
        word: &Word<'a>,
        what: &str,
        known: impl Iterator<Item = &'static str>,
        code: Code,
        help: &'static str,
    ) {
        let meant = self.reader.suggestion(code, &word.text, known);
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        let message = format!("{:?} is no known {what}{meant}", excerpt(&word.text));
        self.reader.find(code, &word.at, message, help);
    }
}

/// What `arches` may call the architecture.
fn names(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Amd64 => &["amd64"],
        Architecture::Arm64 => &["arm64"],
        Architecture::Arm => &["arm"],
        Architecture::I386 => &["x86"],
        Architecture::Ppc64le => &["ppc64le"],
        Architecture::Riscv64 => &["riscv64"],
        Architecture::S390x => &["s390x"],
        Architecture::Loong64 => &["loong64", "loongarch64"],
    }
}

#[cfg(test)]
mod tests;
