//! Takes the program out of a libseccomp filter.
//!
//! Before version 2.6, libseccomp gives a program to a file descriptor and to nothing else. A pipe is one
//! that is of no file system, and a thread empties it meanwhile, as in runc: a user who has many pipes gets
//! new ones that hold 8 KiB (pipe(7)), and a program can be larger than that.
//!
//! Invariant: this is the only part of the crate that has a descriptor or a thread, and neither outlives the
//! call.

use std::io::{self, Read as _};
use std::thread;

use libseccomp::ScmpFilterContext;

/// The program: an instruction of the kernel's `struct sock_filter`, 8 bytes in this machine's order, after
/// another.
///
/// # Errors
/// There is no memory, descriptor or thread for it.
pub(crate) fn export(filter: &ScmpFilterContext) -> io::Result<Vec<u8>> {
    let (mut from, to) = io::pipe()?;
    thread::scope(|scope| {
        let reader = thread::Builder::new().spawn_scoped(scope, move || {
            let mut program = Vec::new();
            from.read_to_end(&mut program).map(|_| program)
        })?;
        let written = filter.export_bpf(&to);
        drop(to);
        let program = reader.join().map_err(|_| io::Error::other("the reader of the pipe panicked"))??;
        written.map(|()| program).map_err(io::Error::other)
    })
}
