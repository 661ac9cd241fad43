//! The program itself, with a directory of bundles and without a cluster.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const OLD: &str = r#"{"defaultAction":"SCMP_ACT_LOG"}"#;
const NEW: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
const BAD: &str = "{}";

/// What is awaited takes milliseconds; machines that run tests are slow now and then.
const PATIENCE: Duration = Duration::from_secs(30);

/// A machine's directories: bundles, the kubelet's, and the agent's own.
struct Scene {
    temporary: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        for name in ["bundles", "kubelet"] {
            fs::create_dir(temporary.path().join(name)).unwrap();
        }
        Self { temporary }
    }

    fn bundles(&self, relative: &str) -> PathBuf {
        self.temporary.path().join("bundles").join(relative)
    }

    fn served(&self, reference: &str) -> PathBuf {
        self.temporary.path().join("kubelet/seccomp").join(reference)
    }

    /// Publishes `text`, as a careful author does: all at once.
    fn publish(&self, reference: &str, text: &str) {
        let path = self.bundles(reference);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = self.temporary.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// The program, with nothing in its environment that would lead to a cluster.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pavise"));
        let source = format!("dir:{}", self.bundles("").display());
        command.env_clear().args(["agent", "--source", &source, "--kubelet-root"]);
        command.arg(self.temporary.path().join("kubelet"));
        command.arg("--state-dir").arg(self.temporary.path().join("state")).args(arguments);
        command.stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Agent {
        Agent(self.command(arguments).spawn().unwrap())
    }

    /// Runs the agent once. Returns its exit code and its log.
    fn once(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let arguments = [&["--once"], arguments].concat();
        self.start(&arguments).end()
    }

    fn expect(&self, reference: &str, text: &str) {
        wait_for(&format!("{reference} to be {text}"), || {
            fs::read_to_string(self.served(reference)).is_ok_and(|served| served == text)
        });
    }

    fn expect_gone(&self, reference: &str) {
        wait_for(&format!("{reference} to be gone"), || !self.served(reference).exists());
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running agent, which does not outlive its test.
struct Agent(Child);

impl Agent {
    /// Waits until it ends. Returns its exit code and its log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.0.wait().unwrap().code(), log)
    }

    /// The same, after telling it to.
    fn stop(self) -> (Option<i32>, String) {
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        self.end()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn files_are_served_live() {
    let scene = Scene::new();
    scene.publish("web/a.json", OLD);
    let agent = scene.start(&["--removal-delay", "0s"]);
    scene.expect("web/a.json", OLD);

    scene.publish("web/a.json", NEW);
    scene.expect("web/a.json", NEW);

    // What is refused has been seen when what came later is there.
    scene.publish("web/a.json", BAD);
    scene.publish("web/b.json", OLD);
    scene.expect("web/b.json", OLD);
    scene.expect("web/a.json", NEW);

    fs::write(scene.served("web/b.json"), "drift").unwrap();
    scene.expect("web/b.json", OLD);
    fs::remove_dir_all(scene.served("web")).unwrap();
    scene.expect("web/b.json", OLD);

    fs::remove_file(scene.bundles("web/b.json")).unwrap();
    scene.expect_gone("web/b.json");
    scene.publish("api/c", OLD);
    scene.expect("api/c", OLD);
    fs::remove_dir_all(scene.bundles("api")).unwrap();
    scene.expect_gone("api");

    scene.publish("api/c", OLD);
    scene.expect("api/c", OLD);
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("Profile refused") && log.contains("missing-default-action"), "{log}");
    scene.expect("api/c", OLD);
}

#[test]
fn a_refused_version_keeps_the_one_before_it_also_after_a_restart() {
    let scene = Scene::new();
    scene.publish("web/a.json", OLD);
    assert_eq!(scene.once(&["--removal-delay=0s"]).0, Some(0));
    scene.publish("web/a.json", BAD);
    let (code, log) = scene.once(&["--removal-delay=0s"]);
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains(r#"unserved="web/a.json""#), "{log}");
    scene.expect("web/a.json", OLD);
}

#[test]
fn a_mounted_config_map_is_served_and_its_swap_is_seen() {
    let scene = Scene::new();
    // As the kubelet's AtomicWriter does it: a directory of files, a link to it, and links through that.
    let write = |version: &str, files: &[(&str, &str)]| {
        fs::create_dir_all(scene.bundles("web").join(version)).unwrap();
        for (name, text) in files {
            fs::write(scene.bundles("web").join(version).join(name), text).unwrap();
            let link = symlink(Path::new("..data").join(name), scene.bundles("web").join(name));
            assert!(link.is_ok() || link.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists));
        }
        symlink(version, scene.bundles("web/..data_tmp")).unwrap();
        fs::rename(scene.bundles("web/..data_tmp"), scene.bundles("web/..data")).unwrap();
    };
    write("..2026_11_22_1", &[("a.json", OLD), ("b.json", OLD)]);
    let agent = scene.start(&["--removal-delay=0s"]);
    scene.expect("web/b.json", OLD);
    write("..2026_11_22_2", &[("a.json", NEW)]);
    fs::remove_file(scene.bundles("web/b.json")).unwrap();
    fs::remove_dir_all(scene.bundles("web/..2026_11_22_1")).unwrap();
    scene.expect("web/a.json", NEW);
    scene.expect_gone("web/b.json");
    let (code, log) = agent.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("..data"), "{log}");
}

#[test]
fn a_source_that_is_away_takes_nothing_away() {
    let scene = Scene::new();
    scene.publish("web/a.json", OLD);
    scene.publish("web/b.json", OLD);
    let mut agent = scene.start(&["--removal-delay=0s"]);
    scene.expect("web/b.json", OLD);
    let away = scene.temporary.path().join("away");
    fs::rename(scene.bundles(""), &away).unwrap();
    wait_for_line(&mut agent, "Bundles can't be read");
    // A drift is repaired by an agent that remembers what was asked for.
    fs::remove_file(scene.served("web/a.json")).unwrap();
    scene.expect("web/a.json", OLD);
    fs::remove_file(away.join("web/b.json")).unwrap();
    fs::rename(&away, scene.bundles("")).unwrap();
    scene.expect_gone("web/b.json");
    scene.expect("web/a.json", OLD);
    assert_eq!(agent.stop().0, Some(0));
}

#[test]
fn run_once_it_says_whether_all_is_served() {
    let scene = Scene::new();
    scene.publish("web/a.json", OLD);
    assert!(scene.once(&[]).1.contains("Done: all is served"));

    let check = |missing: &str, mend: &dyn Fn()| {
        let (code, log) = scene.once(&["--removal-delay=0s"]);
        assert_eq!(code, Some(1), "{missing}: {log}");
        assert!(log.contains("Done: not all is served") && log.contains(missing), "{missing}: {log}");
        scene.expect("web/a.json", OLD);
        mend();
        let (code, log) = scene.once(&["--removal-delay=0s"]);
        assert_eq!(code, Some(0), "{missing}: {log}");
    };
    scene.publish("web/b.json", BAD);
    check("web/b.json", &|| fs::remove_file(scene.bundles("web/b.json")).unwrap());

    assert!(Command::new("mkfifo").arg(scene.bundles("web/fifo")).status().unwrap().success());
    check("web/fifo", &|| fs::remove_file(scene.bundles("web/fifo")).unwrap());

    scene.publish("README.md", "");
    check("README.md", &|| fs::remove_file(scene.bundles("README.md")).unwrap());

    fs::write(scene.served("web/c.json"), "somebody else's").unwrap();
    scene.publish("web/c.json", OLD);
    check("web/c.json", &|| fs::remove_file(scene.served("web/c.json")).unwrap());

    fs::remove_file(scene.bundles("web/c.json")).unwrap();
    assert_eq!(scene.once(&[]).0, Some(0), "what is to be removed later is not waited for");
    scene.expect("web/c.json", OLD);
    assert_eq!(scene.once(&["--removal-delay=0s"]).0, Some(0));
    scene.expect_gone("web/c.json");
}

#[test]
fn told_to_stop_before_all_was_done_is_no_success() {
    let scene = Scene::new();
    scene.publish("web/a.json", OLD);
    let first = scene.start(&[]);
    scene.expect("web/a.json", OLD);
    // It waits for the first one, which has the state directory.
    let mut second = scene.start(&["--once"]);
    wait_for_line(&mut second, "Waiting for another agent to stop");
    let (code, log) = second.stop();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("told to stop before all was done"), "{log}");
    assert_eq!(first.stop().0, Some(0));
}

/// Reads the agent's log up to a line that has `text`.
fn wait_for_line(agent: &mut Agent, text: &str) {
    let log = agent.0.stderr.as_mut().unwrap();
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&seen).contains(text) {
        log.read_exact(&mut byte).unwrap_or_else(|_| panic!("no {text:?} in the log"));
        seen.push(byte[0]);
    }
}

#[test]
fn a_source_that_the_agent_writes_to_is_an_error() {
    let scene = Scene::new();
    fs::create_dir_all(scene.served("web")).unwrap();
    fs::remove_dir(scene.bundles("")).unwrap();
    for directory in [scene.served(""), scene.served("web")] {
        symlink(directory, scene.temporary.path().join("bundles")).unwrap();
        let (code, log) = scene.once(&[]);
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("the agent puts profiles there itself"), "{log}");
        fs::remove_file(scene.temporary.path().join("bundles")).unwrap();
    }
}

#[test]
fn a_source_that_is_not_there_is_an_error() {
    let scene = Scene::new();
    fs::remove_dir(scene.bundles("")).unwrap();
    for arguments in [&[][..], &["--once"]] {
        let (code, log) = scene.start(arguments).end();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("(see --source): No such file or directory"), "{log}");
    }
}
