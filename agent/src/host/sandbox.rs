//! What a process gives up before it reads what strangers wrote.
//!
//! Invariant: nothing of it can be had back, and children inherit all of it. No step needs a privilege.

use std::path::Path;

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope, path_beneath_rules,
};
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use nix::libc::{AF_UNIX, F_SETOWN};
use nix::sys::prctl::{set_dumpable, set_no_new_privs};
use nix::sys::resource::{Resource, rlim_t, setrlimit};

/// What is used of Landlock, where the kernel has it: files, TCP, and, from Linux 6.12 on, signals to processes
/// outside of the sandbox (Documentation/userspace-api/landlock.rst).
const LANDLOCK: ABI = ABI::V6;

/// Calls that no compiler makes, and that reach into other processes of the same user, or that make other
/// calls unseen: `io_uring` can open sockets (`IORING_OP_SOCKET`).
const REACHING: &[&str] = &[
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "pidfd_getfd",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
];

/// What a program that compiles one text does not need besides: to start processes, to change how others of the
/// same user run, to change its process group, sockets, and what stays in the kernel when it has ended.
const BEYOND_ONE_PROCESS: &[&str] = &[
    "add_key",
    "clone",
    "clone3",
    "fork",
    "ioprio_set",
    "keyctl",
    "kill",
    "migrate_pages",
    "move_pages",
    "mq_open",
    "msgget",
    "perf_event_open",
    "pidfd_open",
    "pidfd_send_signal",
    "process_madvise",
    "process_mrelease",
    "request_key",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    "sched_setaffinity",
    "sched_setattr",
    "sched_setparam",
    "sched_setscheduler",
    "semget",
    "setpgid",
    "setpriority",
    "setsid",
    "shmget",
    "socket",
    "socketpair",
    "tkill",
    "vfork",
];

/// A call that is refused, with this error, if one of its arguments is so.
type Refusal = (&'static str, Errno, ScmpArgCompare);

const NOT_UNIX: Refusal = ("socket", Errno::EAFNOSUPPORT, other_than(AF_UNIX.unsigned_abs() as u64));

/// Calls that a parser, or its C library, makes about its own process, and that can be about others.
const ABOUT_OTHERS: [Refusal; 3] = [
    // getrlimit(3) and setrlimit(3) say 0.
    ("prlimit64", Errno::EPERM, other_than(0)),
    // Who gets the signals of a file. F_SETSIG says which: it may be SIGKILL.
    ("fcntl", Errno::EPERM, command(F_SETOWN)),
    ("fcntl", Errno::EPERM, command(F_SETOWN_EX)),
];

/// As of include/uapi/asm-generic/fcntl.h.
const F_SETOWN_EX: i32 = 15;

/// That the first argument is another than `this`.
const fn other_than(this: u64) -> ScmpArgCompare {
    ScmpArgCompare::new(0, ScmpCompareOp::NotEqual, this)
}

/// That the second argument is `this`, in the 32 bits of it that the kernel reads.
const fn command(this: i32) -> ScmpArgCompare {
    ScmpArgCompare::new(1, ScmpCompareOp::MaskedEqual(0xffff_ffff), this.unsigned_abs() as u64)
}

/// What one process may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Address space, in bytes.
    pub(crate) memory: u64,
    /// Processor time, in seconds.
    pub(crate) seconds: u64,
}

/// Gives up sockets but those of Unix, and to be looked into by processes of the same user.
///
/// # Errors
/// The kernel, or libseccomp, does not do part of it; all else is done.
pub(crate) fn confine_server() -> Result<()> {
    // proc(5): /proc/<pid>/mem and the like then belong to root.
    let hidden = set_dumpable(false).context("closing /proc/self to other processes (PR_SET_DUMPABLE)");
    let filtered = load_filter(&[], &[NOT_UNIX]).context("loading a seccomp filter");
    hidden.and(filtered)
}

/// Leaves this process what a parser needs: to read `readable`, and what it has open already; to run the
/// programs among them in its place; and `bounds`.
///
/// Where the kernel has no Landlock, files are not restricted: see [`has_landlock`].
///
/// # Errors
/// One of the limits can't be set.
pub(crate) fn confine_parser(readable: &[&Path], bounds: Bounds) -> Result<()> {
    set_no_new_privs().context("giving up new privileges (PR_SET_NO_NEW_PRIVS)")?;
    for (resource, limit) in [
        (Resource::RLIMIT_AS, bounds.memory),
        (Resource::RLIMIT_CORE, 0),
        // Files of any kind that has a size; pipes have none.
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, 64),
        // Counts all processes of the user, so with 0 there is never one more.
        (Resource::RLIMIT_NPROC, 0),
    ] {
        limit_resource(resource, limit, limit)?;
    }
    // setrlimit(2): at the first of the two SIGXCPU, which tells the reason, at the second SIGKILL.
    limit_resource(Resource::RLIMIT_CPU, bounds.seconds, bounds.seconds.saturating_add(1))?;
    restrict_files(readable).context("restricting files (Landlock)")?;
    // abort(3) sends a signal to its own process.
    let of_others = ("tgkill", Errno::EPERM, other_than(std::process::id().into()));
    let refusals = [&ABOUT_OTHERS[..], &[of_others]].concat();
    load_filter(BEYOND_ONE_PROCESS, &refusals).context("loading a seccomp filter")
}

/// Whether the kernel has Landlock, and it is on.
pub(crate) fn has_landlock() -> bool {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    ruleset.is_ok()
}

fn limit_resource(resource: Resource, soft: rlim_t, hard: rlim_t) -> Result<()> {
    setrlimit(resource, soft, hard).with_context(|| format!("limiting {resource:?}"))
}

fn restrict_files(readable: &[&Path]) -> Result<()> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        // What does not exist is left out.
        .add_rules(path_beneath_rules(readable, AccessFs::from_read(LANDLOCK)))?;
    ruleset.restrict_self()?;
    Ok(())
}

/// Refuses [`REACHING`], `others`, and what `refusals` say. Calls of another architecture end the process.
fn load_filter(others: &[&str], refusals: &[Refusal]) -> Result<()> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    for name in REACHING.iter().chain(others) {
        filter.add_rule(ScmpAction::Errno(Errno::EPERM as i32), ScmpSyscall::from_name(name)?)?;
    }
    for (name, errno, argument) in refusals {
        let refused = ScmpAction::Errno(*errno as i32);
        filter.add_rule_conditional(refused, ScmpSyscall::from_name(name)?, &[*argument])?;
    }
    filter.load()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;
    use std::thread;

    use nix::libc;
    use nix::sys::ptrace;

    use super::*;

    #[test]
    fn a_server_has_no_sockets_but_those_of_unix() {
        // A filter is that of one thread, and those that it starts.
        let confined = thread::spawn(|| {
            load_filter(&[], &[NOT_UNIX]).unwrap();
            UnixStream::pair().unwrap();
            for refused in [TcpListener::bind("127.0.0.1:0").err(), UdpSocket::bind("[::1]:0").err()] {
                assert_eq!(refused.unwrap().raw_os_error(), Some(libc::EAFNOSUPPORT));
            }
            assert_eq!(ptrace::traceme(), Err(Errno::EPERM));
            // Its children too.
            thread::spawn(|| assert!(TcpListener::bind("127.0.0.1:0").is_err())).join()
        });
        confined.join().unwrap().unwrap();
    }
}
