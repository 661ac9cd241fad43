//! What a guest boots: the kernel of Debian's package, and an initramfs that holds busybox, the kernel modules
//! that it takes to see this machine's files, and `init.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::debian::{self, BUSYBOX};
use crate::{cache, command, progress};

/// Depends on the package of the kernel that Debian maintains now.
const KERNEL: &str = "linux-image-amd64";

const SCRIPT: &str = include_str!("init.sh");

/// What the guest needs of the kernel that is not built into it. Those that these depend on come along.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// The files that a guest is booted from.
pub(crate) struct Boot {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Boot {
    /// The files, made when they are not in the cache.
    ///
    /// # Errors
    /// apt-get knows no such packages or can't fetch them, or they lack what is looked for.
    pub(crate) fn ensure() -> anyhow::Result<Self> {
        let kernel = debian::dependency(KERNEL)?;
        let busybox = debian::candidate(BUSYBOX)?;
        let key = cache::Key::default().text(&kernel).text(&busybox).text(SCRIPT).text(&MODULES.join(" "));
        let directory = cache::entry("guest", key, |directory| {
            progress::step(&format!("Fetching {kernel} for the node with AppArmor"), || {
                let unpacked = debian::unpack(&kernel, directory)?;
                let image = only_file(&unpacked.join("boot"), "vmlinuz-")?;
                fs::copy(image, directory.join("vmlinuz")).context("copying the kernel")?;
                let root = directory.join("initramfs");
                for empty in ["bin", "modules", "proc", "sys", "dev", "machine", "memory", "root"] {
                    fs::create_dir_all(root.join(empty)).context("creating the initramfs")?;
                }
                copy_modules(&unpacked, &root.join("modules"))?;
                fs::remove_dir_all(unpacked).context("removing the rest of the kernel's package")?;
                debian::fetch_busybox(directory, &root.join("bin/busybox"))?;
                write_program(&root.join("init"), SCRIPT)?;
                pack(&root, &directory.join("initramfs.cpio"))?;
                fs::remove_dir_all(root).context("removing what the initramfs was made from")
            })
        })?;
        Ok(Self { kernel: directory.join("vmlinuz"), initramfs: directory.join("initramfs.cpio") })
    }
}

/// Copies [`MODULES`] and what they depend on, under names that sort in the order in which they are to be
/// loaded.
fn copy_modules(unpacked: &Path, target: &Path) -> anyhow::Result<()> {
    let version = only_file(&unpacked.join("lib/modules"), "")?;
    let version = version.file_name().and_then(|name| name.to_str()).context("the kernel has no version")?;
    // Debian does this when the package is installed.
    command::output(Command::new("depmod").arg("--basedir").arg(unpacked).arg(version))?;
    let mut modules: Vec<PathBuf> = Vec::new();
    for module in MODULES {
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("--dirname").arg(unpacked).args(["--set-version", version, "--show-depends", module]);
        for line in command::output(&mut modprobe)?.lines() {
            // "insmod <path>", or "builtin <name>".
            if let Some(path) = line.strip_prefix("insmod ").map(|path| PathBuf::from(path.trim()))
                && !modules.contains(&path)
            {
                modules.push(path);
            }
        }
    }
    for (index, module) in modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        fs::copy(module, target.join(format!("{index:02}-{name}")))
            .with_context(|| format!("copying {}", module.display()))?;
    }
    Ok(())
}

fn only_file(directory: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("listing {}", directory.display()))?;
    let mut names = entries.filter_map(|entry| Some(entry.ok()?.path()));
    names
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .with_context(|| format!("the kernel's package has no {}/{prefix}…", directory.display()))
}

fn write_program(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", path.display()))
}

fn pack(root: &Path, archive: &Path) -> anyhow::Result<()> {
    let names = command::output(Command::new("find").arg(".").current_dir(root))?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--owner=0:0", "--quiet", "--file"])
        .arg(archive)
        .current_dir(root);
    command::output_with_input(&mut cpio, names.as_bytes()).map(drop)
}
