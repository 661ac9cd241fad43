//! What this machine is, as far as documents ask for it.

use anyhow::{Context, Result};
use nix::sys::utsname::uname;
use profiles::platform::{Architecture, Kernel, Platform};

/// What profiles are to be read for here.
///
/// # Errors
/// The architecture or the kernel can't be told.
pub(crate) fn of_this_machine() -> Result<Platform> {
    Ok(Platform { architecture: architecture()?, kernel: kernel()? })
}

/// The architecture of this program, and so of the containers beside it.
///
/// # Errors
/// It is none that nodes have.
pub(crate) fn architecture() -> Result<Architecture> {
    Architecture::of_this_program().with_context(|| {
        let name = std::env::consts::ARCH;
        format!(
            "telling the architecture: this program is built for {name}, which no profile can be read for"
        )
    })
}

/// The release of the running kernel.
///
/// # Errors
/// uname(2) fails, or its answer is none.
pub(crate) fn kernel() -> Result<Kernel> {
    let name = uname().context("asking for the release of the kernel (uname)")?;
    let release = name.release().to_string_lossy();
    release.parse().context("reading the release of the kernel (uname)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told() {
        let platform = of_this_machine().unwrap();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert!(release.starts_with(&platform.kernel.to_string()), "{release} is not {platform:?}");
    }
}
