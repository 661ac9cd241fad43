//! Containers whose files have got another content since they started.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};
use profiles::digest::Digest;

use super::*;
use crate::host::proc::examples::{KTHREADD_STAT, proc};

const A: &str = "web/a.json";

/// A node with one container, which was started some time ago.
struct Started {
    scene: Scene,
    proc: tempfile::TempDir,
}

impl Started {
    fn new() -> Self {
        let proc = proc(&[("7/cgroup", "0::/c0ffee\n"), ("7/status", "Seccomp:\t2\n")]);
        Self { scene: Scene::new(), proc }
    }

    /// The container is started anew.
    fn start(&self) {
        // So that nothing that follows comes within the same tick.
        thread::sleep(Duration::from_millis(30));
        let boottime = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap());
        let ticks = sysconf(SysconfVar::CLK_TCK).unwrap().unwrap().unsigned_abs();
        let started = boottime.as_millis() * u128::from(ticks) / 1_000;
        let stat = KTHREADD_STAT.replacen(" 24 0 0", &format!(" {started} 0 0"), 1);
        fs::write(self.proc.path().join("7/stat"), stat).unwrap();
        thread::sleep(Duration::from_millis(30));
    }

    fn is_outdated(&mut self, file: &str) -> bool {
        let host = self.scene.host.take().unwrap().with_proc(self.proc.path().to_owned(), false);
        let host = self.scene.host.insert(host);
        let id = ContainerId("c0ffee".to_owned());
        let inspect = Inspect { id: id.clone(), file: SeccompPath::of(file) };
        host.inspect(&[inspect].into()).remove(&id).unwrap().unwrap().is_outdated
    }

    fn since(&mut self) -> Vec<(Digest, Option<u64>)> {
        self.scene.host().ledger.record().files[&A.parse().unwrap()].clone().into_iter().collect()
    }
}

#[test]
fn a_container_is_outdated_when_its_file_gets_another_content() {
    let mut started = Started::new();
    started.scene.install(A, "1").unwrap();
    started.start();
    assert!(!started.is_outdated(A));
    started.scene.install(A, "2").unwrap();
    assert!(started.is_outdated(A));
    started.scene.restart();
    assert!(started.is_outdated(A), "an agent that was restarted does not know");
    started.start();
    assert!(!started.is_outdated(A));
    // A version that comes back is a new one.
    started.scene.install(A, "1").unwrap();
    assert!(started.is_outdated(A));
    started.scene.remove(A);
    assert!(!started.is_outdated(A));
}

#[test]
fn what_is_put_back_outdates_nothing() {
    let mut started = Started::new();
    started.scene.install(A, "1").unwrap();
    started.scene.install(A, "2").unwrap();
    started.start();
    let since = started.since();
    started.scene.plant(A, "3");
    assert!(!started.is_outdated(A));
    started.scene.install(A, "2").unwrap();
    assert!(!started.is_outdated(A));
    fs::remove_file(started.scene.path(A)).unwrap();
    assert!(!started.is_outdated(A));
    started.scene.install(A, "2").unwrap();
    assert!(!started.is_outdated(A));
    let newest = |since: Vec<(Digest, Option<u64>)>| since.into_iter().max_by_key(|(_, since)| *since);
    assert_eq!(newest(started.since()), newest(since));
}

#[test]
fn a_version_that_can_not_be_written_outdates_nothing_until_it_is() {
    let mut started = Started::new();
    started.scene.install(A, "1").unwrap();
    started.start();
    let pending = started.scene.judged(A, "2");
    started.scene.host().intend(&[pending]).unwrap();
    assert!(!started.is_outdated(A));
    started.scene.install(A, "2").unwrap();
    assert!(started.is_outdated(A));
}

#[test]
fn files_of_others_have_their_content_since_they_were_written() {
    let mut started = Started::new();
    started.scene.plant("foreign.json", "1");
    started.scene.plant(A, "1");
    started.start();
    for file in ["foreign.json", A] {
        assert!(!started.is_outdated(file));
    }
    // Adopted, it is as old as it was.
    started.scene.install(A, "1").unwrap();
    assert!(!started.is_outdated(A));
    started.scene.plant("foreign.json", "2");
    assert!(started.is_outdated("foreign.json"));
    for file in ["absent.json", "absent/a.json", "foreign.json/x"] {
        assert!(!started.is_outdated(file), "{file}");
    }
}

#[test]
fn nothing_is_outdated_where_nobody_took_note_of_when_a_file_was_written() {
    let mut started = Started::new();
    started.scene.install(A, "1").unwrap();
    started.start();
    started.scene.install(A, "2").unwrap();
    let forget = |record: &mut FileRecord| {
        for contents in record.files.values_mut() {
            for since in contents.values_mut() {
                *since = None;
            }
        }
    };
    started.scene.host().ledger.commit(forget).unwrap();
    assert!(!started.is_outdated(A));
    // It is written again, and still nobody knows.
    started.scene.install(A, "2").unwrap();
    assert!(!started.is_outdated(A));
    started.scene.install(A, "3").unwrap();
    assert!(started.is_outdated(A));
}
