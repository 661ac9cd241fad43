//! Asks the kernel what a filter does: a child process is put under it and makes system calls.
//!
//! The child makes nothing but system calls and writes to memory that it shares, so it may come of a process
//! with threads.
#![expect(
    unsafe_code,
    reason = "a filter can't be taken off again, so it takes a process of its own: fork(2)"
)]

use std::ptr;

/// A system call to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) number: i64,
    pub(super) arguments: [u64; 6],
}

/// What came of a system call.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Outcome {
    /// The kernel carried it out.
    Done,
    /// It returned this error; 0: it returned 0, and was not carried out.
    Errno(i32),
    /// It raised SIGSYS, which the process could catch.
    Trapped,
    /// It ended the process.
    Killed,
}

/// What the child and its parent share.
#[repr(C)]
struct Board {
    /// The probe that is being made.
    current: usize,
    is_trapped: bool,
    has_filter: bool,
    outcomes: [i64; MOST],
}

/// How many probes fit on a board.
const MOST: usize = 1024;
/// That the call returned what it returns when it is carried out.
const DONE: i64 = -1;

static mut BOARD: *mut Board = ptr::null_mut();

/// What comes of each probe in a process under `program`.
pub(super) fn ask(program: &[u8], probes: &[Probe]) -> Vec<Outcome> {
    assert!(probes.len() <= MOST);
    let board = Shared::new();
    let mut outcomes = Vec::new();
    while outcomes.len() < probes.len() {
        // SAFETY: the child does what is allowed to a child of a process with threads (signal-safety(7)).
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "fork failed");
        if child == 0 {
            // SAFETY: this is the child, and nobody else writes to the board.
            unsafe { obey(program, probes, outcomes.len(), board.0) };
        }
        let mut status = 0;
        // SAFETY: `status` is a place for a status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        // SAFETY: the child has ended, so nobody writes.
        let seen = unsafe { &mut *board.0 };
        assert!(seen.has_filter, "the kernel refused the filter");
        let made = seen.outcomes[outcomes.len()..seen.current].iter();
        outcomes.extend(made.map(|outcome| match i32::try_from(*outcome) {
            Ok(errno) if errno >= 0 => Outcome::Errno(errno),
            _ => Outcome::Done,
        }));
        if outcomes.len() < probes.len() {
            assert!(
                seen.is_trapped || libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS,
                "status {status:#x}"
            );
            outcomes.push(if seen.is_trapped { Outcome::Trapped } else { Outcome::Killed });
        }
        seen.is_trapped = false;
    }
    outcomes
}

/// Memory that a child shares with its parent.
struct Shared(*mut Board);

impl Shared {
    fn new() -> Self {
        // SAFETY: it asks for new memory, filled with zeros, which is a board.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Board>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(memory, libc::MAP_FAILED);
        Self(memory.cast())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it is the memory that `new` got, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), size_of::<Board>()) };
    }
}

/// The child: goes under the filter, makes the probes from `first` on, and ends.
unsafe fn obey(program: &[u8], probes: &[Probe], first: usize, board: *mut Board) -> ! {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len() / 8).unwrap_or(0),
        filter: program.as_ptr().cast_mut().cast(),
    };
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: all pointers are to what lives longer than the calls, and the handler does nothing but write
    // and exit.
    unsafe {
        BOARD = board;
        (*board).current = first;
        libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core);
        libc::signal(libc::SIGSYS, trapped as *const () as libc::sighandler_t);
        let is_ready = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) == 0;
        (*board).has_filter = is_ready;
        if !is_ready {
            libc::_exit(1);
        }
        for (index, Probe { number, arguments: [a, b, c, d, e, f] }) in probes.iter().enumerate().skip(first)
        {
            let returned = libc::syscall(*number, *a, *b, *c, *d, *e, *f);
            let outcome = match returned {
                0 => 0,
                -1 => i64::from(*libc::__errno_location()),
                _ => DONE,
            };
            (&raw mut (*board).outcomes[index]).write_volatile(outcome);
            (&raw mut (*board).current).write_volatile(index + 1);
        }
        libc::_exit(0)
    }
}

extern "C" fn trapped(_signal: libc::c_int) {
    // SAFETY: the child set the board before the handler, and has one thread.
    unsafe {
        (&raw mut (*BOARD).is_trapped).write_volatile(true);
        libc::_exit(0)
    }
}
