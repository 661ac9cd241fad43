//! Reading a text from a path at which anything can be.
//!
//! Invariants: it never blocks, whatever is there, and never reads more than a profile can be. Links are
//! followed: who chose the path trusts what is there.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::dir::LARGEST;

/// Why there is no text.
#[derive(Debug)]
pub(crate) enum NoText {
    /// There is no file, or only a link that leads nowhere.
    Absent,
    /// It can't be read.
    Unreadable(io::Error),
    /// It is no regular file.
    NoFile,
    /// It is larger than a profile can be.
    Large,
    /// It is not UTF-8, from this byte on, counted from 1.
    Binary(usize),
}

/// Reads the file at `path`.
pub(crate) fn read(path: &Path) -> Result<String, NoText> {
    // O_NONBLOCK: open(2) of a FIFO without a writer would wait for one.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(of_error)?;
    if !file.metadata().map_err(NoText::Unreadable)?.is_file() {
        return Err(NoText::NoFile);
    }
    let mut content = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut content).map_err(NoText::Unreadable)?;
    if content.len() as u64 > LARGEST {
        return Err(NoText::Large);
    }
    String::from_utf8(content).map_err(|error| NoText::Binary(error.utf8_error().valid_up_to() + 1))
}

fn of_error(error: io::Error) -> NoText {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => NoText::Absent,
        // open(2): a socket, or a device that is not there.
        (_, Some(code)) if code == nix::errno::Errno::ENXIO as i32 => NoText::NoFile,
        _ => NoText::Unreadable(error),
    }
}
