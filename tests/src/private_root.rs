//! The file system that a cluster's processes see: the machine's programs, read-only, and everything that is
//! written (`/var`, `/run`, `/tmp`, `/root`) in the cluster's own directory. A kubelet and a containerd can
//! so use their usual paths, beside any other on the machine, and leave nothing there.
//!
//! Only processes of the cluster's mount namespace see it: it vanishes with them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::layout::Layout;
use crate::{HOST_NODE, cache};

/// What the kubelet sets (`setupKernelTunables` in pkg/kubelet/cm), on the whole machine. Files of the
/// cluster's own are laid over them, so that the machine keeps its settings.
pub(crate) const TUNABLES: &[&str] = &[
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Makes the private root that of this process and of all that it starts.
///
/// # Errors
/// A mount fails: the error says which. The process needs root and a mount namespace of its own.
pub(crate) fn enter(layout: &Layout) -> anyhow::Result<()> {
    let root = layout.private_root();
    let node = layout.node(HOST_NODE);
    set_propagation(Path::new("/"), MsFlags::MS_PRIVATE)?;
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    mount_new("tmpfs", &root, "mode=755")?;
    link_programs(&root)?;
    for directory in ["var", "run", "tmp", "root"] {
        let source = node.directory().join(directory);
        fs::create_dir_all(&source).with_context(|| format!("creating {}", source.display()))?;
        bind(&source, &root.join(directory), MsFlags::empty())?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))
        .context("opening /tmp to all")?;
    for directory in ["/dev", "/sys"] {
        bind(Path::new(directory), &below(&root, Path::new(directory)), MsFlags::MS_REC)?;
    }
    // The cluster's own directory and the cache have the same paths inside as outside.
    for directory in [layout.state(), &cache::directory()?] {
        bind(directory, &below(&root, directory), MsFlags::empty())?;
    }
    let proc = root.join("proc");
    fs::create_dir_all(&proc).context("creating /proc")?;
    mount_new("proc", &proc, "")?;
    cover_tunables(&root, node.directory())?;
    hide_apparmor(&root)?;

    nix::unistd::chdir(&root).context("entering the private root")?;
    nix::unistd::pivot_root(".", ".").context("making it the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leaving the machine's root")?;
    nix::unistd::chdir("/").context("entering the new root")?;
    // As systemd does at boot: volumes with mount propagation need a shared root (kubernetes.io: Mount
    // propagation).
    set_propagation(Path::new("/"), MsFlags::MS_SHARED)
}

/// `/usr` and the like; where they are links (merged /usr), the links.
fn link_programs(root: &Path) -> anyhow::Result<()> {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "opt"] {
        let (source, target) = (Path::new("/").join(name), root.join(name));
        if source.is_symlink() {
            let to = fs::read_link(&source).with_context(|| format!("reading {}", source.display()))?;
            std::os::unix::fs::symlink(to, &target)
                .with_context(|| format!("linking {}", target.display()))?;
        } else if source.is_dir() {
            bind(&source, &target, MsFlags::MS_REC)?;
            let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(None::<&str>, &target, None::<&str>, read_only, None::<&str>)
                .with_context(|| format!("making {} read-only", target.display()))?;
        }
    }
    Ok(())
}

fn cover_tunables(root: &Path, node: &Path) -> anyhow::Result<()> {
    let covers = node.join("sysctl");
    for tunable in TUNABLES {
        let real = root.join("proc/sys").join(tunable);
        let Ok(value) = fs::read(&real) else { continue };
        let cover = covers.join(tunable);
        fs::create_dir_all(cover.parent().unwrap_or(&covers))
            .with_context(|| format!("creating {}", covers.display()))?;
        fs::write(&cover, value).with_context(|| format!("writing {}", cover.display()))?;
        mount(Some(&cover), &real, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("covering {}", real.display()))?;
    }
    Ok(())
}

/// This node is the one without AppArmor, on every machine: programs look for the first directory to tell. In
/// the second one is securityfs, through which an agent would change the machine's own policy.
fn hide_apparmor(root: &Path) -> anyhow::Result<()> {
    for directory in ["sys/module/apparmor", "sys/kernel/security"] {
        let directory = root.join(directory);
        if directory.is_dir() {
            mount_new("tmpfs", &directory, "mode=755")?;
        }
    }
    Ok(())
}

fn below(root: &Path, absolute: &Path) -> std::path::PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}

fn bind(source: &Path, target: &Path, recursive: MsFlags) -> anyhow::Result<()> {
    fs::create_dir_all(target).with_context(|| format!("creating {}", target.display()))?;
    mount(Some(source), target, None::<&str>, MsFlags::MS_BIND | recursive, None::<&str>)
        .with_context(|| format!("binding {} to {}", source.display(), target.display()))
}

fn mount_new(kind: &str, target: &Path, options: &str) -> anyhow::Result<()> {
    mount(Some(kind), target, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("mounting {kind} at {}", target.display()))
}

fn set_propagation(path: &Path, propagation: MsFlags) -> anyhow::Result<()> {
    mount(None::<&str>, path, None::<&str>, propagation | MsFlags::MS_REC, None::<&str>)
        .with_context(|| format!("changing how mounts below {} propagate", path.display()))
}
