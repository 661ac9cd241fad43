//! Container images without a registry: built by buildah, kept in the cache as docker archives.
//!
//! Pavise's own image comes from the project's Dockerfile. Its base image is not pulled: a stand-in carries
//! its name, made of Debian's packages and of the Rust toolchain that this machine has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::{cache, command, debian, progress, repository, tools};

/// The image of every pod's first container.
pub const PAUSE: &str = "localhost/testbed/pause:1";
/// Debian's static busybox.
pub const BUSYBOX: &str = "localhost/testbed/busybox:1";
/// A small HTTP server that can say what its seccomp profile lets it do.
pub const HTTP_ECHO: &str = "localhost/testbed/http-echo:1";
/// Pavise, under the name that the manifests use.
pub const PAVISE: &str = "docker.io/library/pavise:0.1.0";

/// The archives of the images that test pods use, built when they are not in the cache.
///
/// # Errors
/// Go, apt-get or buildah fails; its words are in the error.
pub fn test_images() -> anyhow::Result<Vec<PathBuf>> {
    let sources = repository().join("tests/images");
    let key = cache::Key::default().path(&sources)?;
    let entry = cache::entry("test-images", key, |directory| {
        progress::step("Building the images of the test pods", || {
            tools::build_static_program(&sources.join("pause"), &directory.join("pause"))?;
            tools::build_static_program(&sources.join("http-echo"), &directory.join("http-echo"))?;
            debian::fetch_busybox(directory, &directory.join("busybox"))?;
            for (target, image) in [("pause", PAUSE), ("http-echo", HTTP_ECHO), ("busybox", BUSYBOX)] {
                let build = ["--target", target, "--file", "tests/images/Dockerfile"];
                build_image(&build, image, directory, &directory.join(format!("{target}.tar")))?;
            }
            Ok(())
        })
    })?;
    Ok(["pause", "http-echo", "busybox"].map(|name| entry.join(format!("{name}.tar"))).into())
}

/// The archive of Pavise's image, built from the Dockerfile when the cache has none for these sources.
///
/// # Errors
/// mmdebstrap, cargo or buildah fails; its words are in the error.
pub fn pavise_image() -> anyhow::Result<PathBuf> {
    let mut key = cache::Key::default();
    for input in ["Dockerfile", "Cargo.toml", "Cargo.lock", "profiles", "agent"] {
        key = key.path(&repository().join(input))?;
    }
    let entry = cache::entry("pavise-image", key, |directory| {
        let toolchain = command::output(Command::new("rustc").args(["--print", "sysroot"]))?;
        ensure_base_image()?;
        progress::step(
            "Building Pavise's image from its Dockerfile (a few minutes when its dependencies are new)",
            || {
                // What the image's cargo needs is fetched outside, with this machine's access to the
                // registry.
                command::output(Command::new("cargo").args(["fetch", "--locked"]).current_dir(repository()))?;
                let volumes = [
                    format!("--volume={}:{TOOLCHAIN}:ro", toolchain.trim()),
                    format!(
                        "--volume={}:/usr/local/cargo/registry",
                        cargo_home()?.join("registry").display()
                    ),
                ];
                build_image(
                    &volumes.each_ref().map(String::as_str),
                    PAVISE,
                    repository(),
                    &directory.join("pavise.tar"),
                )
            },
        )
    })?;
    Ok(entry.join("pavise.tar"))
}

/// Where the stand-in for Rust's image finds a toolchain.
const TOOLCHAIN: &str = "/usr/local/rust";

/// Makes a stand-in for the image that the Dockerfile begins with: Debian's packages that it has, without a
/// toolchain.
fn ensure_base_image() -> anyhow::Result<()> {
    let dockerfile = fs::read_to_string(repository().join("Dockerfile")).context("reading the Dockerfile")?;
    let name = dockerfile
        .lines()
        .find_map(|line| line.strip_prefix("FROM ")?.split(' ').next())
        .context("the Dockerfile has no FROM line")?;
    let release = name.rsplit('-').next().unwrap_or_default();
    let stand_in = format!(
        "FROM scratch\nADD base.tar /\nENV PATH={TOOLCHAIN}/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_HOME=/usr/local/cargo\nRUN mkdir -p {TOOLCHAIN} /usr/local/cargo\n"
    );
    let key = cache::Key::default().text(name).text(&stand_in);
    let entry = cache::entry("base-image", key, |directory| {
        progress::step(&format!("Making a stand-in for {name} from Debian's packages"), || {
            let mut mmdebstrap = Command::new("mmdebstrap");
            mmdebstrap
                .args(["--variant=minbase", "--include=ca-certificates,gcc,libc6-dev", release])
                .arg(directory.join("base.tar"));
            command::output(&mut mmdebstrap)?;
            fs::write(directory.join("Dockerfile"), &stand_in).context("writing its Dockerfile")
        })
    })?;
    // buildah's own store is no cache of ours: what it holds may be cleaned away by anybody.
    if command::output(buildah()?.args(["inspect", "--type=image", name])).is_err() {
        progress::step(&format!("Importing the stand-in for {name}"), || {
            command::output(
                buildah()?.args(["bud", "--isolation=chroot", "--quiet", "--tag", name]).arg(&entry),
            )
            .map(drop)
        })?;
    }
    Ok(())
}

fn build_image(options: &[&str], name: &str, context: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut build = buildah()?;
    build
        .args(["bud", "--isolation=chroot", "--pull-never", "--quiet", "--tag", name])
        .args(options)
        .arg(context);
    command::output(build.current_dir(repository()))?;
    let target = format!("docker-archive:{}:{name}", archive.display());
    command::output(buildah()?.args(["push", "--quiet", name, &target])).map(drop)
}

/// buildah with a store of its own in the cache, in a mount namespace of its own: a build that is interrupted
/// leaves no mounts.
fn buildah() -> anyhow::Result<Command> {
    let store = cache::directory()?.join("buildah");
    let temporary = store.join("tmp");
    fs::create_dir_all(&temporary).with_context(|| format!("creating {}", temporary.display()))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "buildah", "--storage-driver=overlay"]).env("TMPDIR", temporary);
    command.arg("--root").arg(store.join("images")).arg("--runroot").arg(store.join("run"));
    Ok(command)
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("CARGO_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")
}
