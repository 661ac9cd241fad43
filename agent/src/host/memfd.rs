//! Files that have no name, in memory.
//!
//! Invariant: each can be read from its beginning, and is gone with the last process that has it open.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::error::HostError;

/// Who gets such a file besides this process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heir {
    /// Only a child that is given it as a standard stream.
    Nobody,
    /// The program that replaces this one, under the same number.
    NextProgram,
}

/// Makes a file that holds `parts`, one after the other.
pub(crate) fn with(parts: &[&[u8]], heir: Heir) -> Result<File, HostError> {
    let attempted =
        |error: std::io::Error| HostError::new("making a file in memory", Path::new("memfd"), error);
    let flags = if heir == Heir::Nobody { MFdFlags::MFD_CLOEXEC } else { MFdFlags::empty() };
    let mut file =
        File::from(memfd_create(c"pavise", flags).map_err(std::io::Error::from).map_err(attempted)?);
    for part in parts {
        file.write_all(part).map_err(attempted)?;
    }
    file.rewind().map_err(attempted)?;
    Ok(file)
}
