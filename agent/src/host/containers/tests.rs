//! Containers in procfs directories of the tests' own, and a process of the real one.

use std::process::{Child, Command, Stdio};
use std::thread;

use libseccomp::{ScmpAction, ScmpFilterContext};

use super::*;
use crate::host::proc::examples::proc;

/// `/proc/<number>/stat` of a process in this state, started at this tick.
fn stat(number: u32, state: char, started: u64) -> String {
    format!(
        "{number} (a b) {state} 1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {started} 0 0 18446744073709551615 0 0 0 0 0 \
         0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    )
}

/// A process: its number, state, start and cgroup, and what else is there.
type Process<'a> = (u32, char, u64, &'a str, &'a [(&'a str, &'a str)]);

/// A procfs with these processes.
fn scene(processes: &[Process<'_>]) -> tempfile::TempDir {
    let temporary = proc(&[]);
    for (number, state, started, cgroup, others) in processes {
        let directory = temporary.path().join(number.to_string());
        let status = "Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        for (name, content) in
            [("stat", &*stat(*number, *state, *started)), ("cgroup", cgroup), ("status", status)]
                .iter()
                .chain(*others)
        {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }
    temporary
}

fn id(text: &str) -> ContainerId {
    ContainerId(text.to_owned())
}

fn ask(containers: &mut Containers, ids: &[&str]) -> Vec<Option<Said>> {
    let ids: Vec<ContainerId> = ids.iter().map(|text| id(text)).collect();
    let mut said = containers.ask(&ids.iter().collect());
    ids.iter().map(|id| said.remove(id).unwrap()).collect()
}

/// Claims whether a process with this cgroup is one of the container `c0ffee`.
fn check_cgroup(cgroup: &str, is_its: bool) {
    let temporary = scene(&[(7, 'S', 1, cgroup, &[])]);
    let mut containers = Containers::new(temporary.path().to_owned(), false);
    assert_eq!(ask(&mut containers, &["c0ffee"])[0].is_some(), is_its, "{cgroup}");
}

#[test]
fn a_container_is_found_by_its_name_in_the_paths_that_runtimes_choose() {
    for path in [
        "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-c0ffee.scope\n",
        "0::/../../kubepods-pod1.slice/cri-containerd-c0ffee.scope\n",
        "0::/../cri-containerd-c0ffee.scope\n",
        "0::/kubepods/besteffort/pod1/c0ffee\n",
        "0::/kubepods/besteffort/pod1/c0ffee/below/it\n",
        "0::/system.slice/kubepods-pod1.slice:cri-containerd:c0ffee\n",
        "0::/kubepods.slice/crio-c0ffee.scope\n",
        "0::/kubepods.slice/crio-c0ffee.scope/container\n",
        "0::/kubepods.slice/docker-c0ffee.scope\n",
        "12:pids:/kubepods/pod1/c0ffee\n11:cpu,cpuacct:/\n0::/\n",
        "1:name=systemd:/kubepods/pod1/c0ffee\n",
        "0::/cri-containerd-outer.scope/kubelet/cri-containerd-c0ffee.scope",
    ] {
        check_cgroup(path, true);
    }
    for path in [
        "",
        "0::/\n",
        "c0ffee\n",
        "0::/kubepods/pod1/c0ffee0\n",
        "0::/kubepods/pod1/0c0ffee\n",
        "0::/kubepods.slice/crio-conmon-c0ffee.scope\n",
        "0::/kubepods/pod1/crio-conmon-c0ffee\n",
        "0::/kubepods/podc0ffee.slice/cri-containerd-x.scope\n",
        "0::/kubepods/pod1/c0ffee (deleted)\n",
    ] {
        check_cgroup(path, false);
    }
}

#[test]
fn a_long_pass_is_followed_by_a_rest_in_which_what_is_known_is_told() {
    let temporary = scene(&[(7, 'S', 1, "0::/c0ffee\n", &[]), (8, 'S', 1, "0::/other\n", &[])]);
    let mut containers = Containers::new(temporary.path().to_owned(), false);
    let found = |containers: &mut Containers| {
        ask(containers, &["c0ffee", "other"]).into_iter().map(|said| said.is_some()).collect::<Vec<_>>()
    };
    ask(&mut containers, &["c0ffee"]);
    containers.rests_until = Instant::now().checked_add(Duration::from_hours(1));
    assert_eq!(found(&mut containers), [true, false]);
    containers.rests_until = Some(Instant::now());
    assert_eq!(found(&mut containers), [true, true]);
}

#[test]
fn the_first_process_speaks_for_its_container() {
    let mode = |mode: u32| ("status", ["Seccomp:\t0\n", "Seccomp:\t1\n", "Seccomp:\t2\n"][mode as usize]);
    let temporary = scene(&[
        (5, 'S', 100, "0::/c0ffee\n", &[mode(0)]),
        (6, 'Z', 80, "0::/c0ffee\n", &[mode(0)]),
        (7, 'S', 90, "0::/c0ffee\n", &[mode(2)]),
        (9, 'S', 90, "0::/c0ffee\n", &[mode(0)]),
        (8, 'S', 1, "0::/other\n", &[mode(1)]),
        (4, 'S', 1, "0::/others\n", &[mode(0)]),
    ]);
    let mut containers = Containers::new(temporary.path().to_owned(), false);
    let modes = |containers: &mut Containers| {
        let said = ask(containers, &["c0ffee", "other", "absent"]);
        said.into_iter().map(|said| said.map(|said| said.seccomp_mode)).collect::<Vec<_>>()
    };
    assert_eq!(modes(&mut containers), [Some(2), Some(1), None]);
    // Known, they are not looked for again.
    fs::write(temporary.path().join("7/cgroup"), "0::/\n").unwrap();
    assert_eq!(modes(&mut containers), [Some(2), Some(1), None]);
    // Another process has the number now.
    fs::write(temporary.path().join("7/stat"), stat(7, 'S', 200)).unwrap();
    assert_eq!(modes(&mut containers), [Some(0), Some(1), None]);
    assert_eq!(containers.known[&id("c0ffee")], First { started: 90, number: 9 });
    // What is gone is forgotten.
    for number in ["5", "8", "9"] {
        fs::remove_dir_all(temporary.path().join(number)).unwrap();
    }
    assert_eq!(modes(&mut containers), [None, None, None]);
    assert_eq!(containers.known, BTreeMap::new());
}

#[test]
fn what_is_known_of_a_container_that_nobody_asks_about_any_more_is_forgotten() {
    let temporary = scene(&[(5, 'S', 1, "0::/a\n", &[]), (6, 'S', 1, "0::/b\n", &[])]);
    let mut containers = Containers::new(temporary.path().to_owned(), false);
    ask(&mut containers, &["a", "b"]);
    fs::remove_dir_all(temporary.path().join("5")).unwrap();
    ask(&mut containers, &["c"]);
    assert_eq!(containers.known.keys().map(|id| id.0.as_str()).collect::<Vec<_>>(), ["b"]);
}

/// Claims what is told of a process with these files: the mode, filters, and label.
fn check_said(
    has_apparmor: bool,
    files: &[(&str, &str)],
    expected: Option<(u32, Option<u32>, Option<&str>)>,
) {
    let temporary = scene(&[(7, 'S', 1, "0::/c0ffee\n", files)]);
    let mut containers = Containers::new(temporary.path().to_owned(), has_apparmor);
    let said = ask(&mut containers, &["c0ffee"]).remove(0);
    let said = said.as_ref().map(|said| (said.seccomp_mode, said.seccomp_filters, said.apparmor.as_deref()));
    assert_eq!(said, expected, "{files:?}");
}

#[test]
fn the_mode_the_filters_and_the_label_are_told() {
    let own = ("attr/apparmor/current", "web (enforce)\n");
    let shared = ("attr/current", "system_u:system_r:container_t:s0\0");
    check_said(true, &[own], Some((2, Some(1), Some("web (enforce)"))));
    check_said(true, &[own, shared], Some((2, Some(1), Some("web (enforce)"))));
    check_said(false, &[own], Some((2, Some(1), Some("web (enforce)"))));
    // A kernel before 5.8, and one with another security module.
    check_said(true, &[("attr/current", "web (enforce)\n")], Some((2, Some(1), Some("web (enforce)"))));
    check_said(false, &[shared], Some((2, Some(1), None)));
    // A kernel before 5.9, and one without seccomp.
    check_said(false, &[("status", "Name:\tx\nSeccomp:\t2\n")], Some((2, None, None)));
    check_said(false, &[("status", "Name:\tx\n")], None);
    // A program chooses its name.
    check_said(
        false,
        &[("status", "Name:\tSeccomp:\t2\\nSeccomp:\t2\nSeccomp:\t0\n")],
        Some((0, None, None)),
    );
    check_said(false, &[("attr/apparmor/current/x", "")], None);
}

#[test]
fn it_is_said_once_if_none_is_found_because_none_can_be_seen() {
    let temporary = scene(&[(7, 'S', 1, "0::/c0ffee\n", &[])]);
    let mut containers = Containers::new(temporary.path().to_owned(), false);
    assert_eq!(ask(&mut containers, &["x"]), [None]);
    assert!(!containers.is_said, "it may have ended");
    fs::remove_dir_all(temporary.path().join("2")).unwrap();
    assert_eq!(ask(&mut containers, &["x"]), [None]);
    assert!(containers.is_said);
    // As where the kubelet runs in a container.
    assert!(ask(&mut containers, &["c0ffee"])[0].is_some());
    assert!(!containers.is_said);
}

#[test]
fn the_end_of_the_tick_counts_as_the_start_of_a_process() {
    let clock = Clock { boot: SystemTime::UNIX_EPOCH, ticks_per_second: 100 };
    for (started, milliseconds) in
        [(0, 10), (1, 20), (99, 1_000), (100, 1_010), (100 * 86_400 * 1_000, 86_400_000_010)]
    {
        let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        assert_eq!(clock.by(started), Some(expected), "{started}");
    }
    assert_eq!(clock.by(u64::MAX), None);
    assert_eq!(Clock { ticks_per_second: 0, ..clock }.by(1), None);
}

/// A process of this machine, which ends with the test.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Starts one under a seccomp filter that allows everything, or under none.
fn sleeper(is_filtered: bool) -> Sleeper {
    // A filter is that of one thread, and of what it starts.
    let start = move || {
        if is_filtered {
            let mut filter = ScmpFilterContext::new(ScmpAction::Allow).unwrap();
            filter
                .add_rule(ScmpAction::Errno(1), libseccomp::ScmpSyscall::from_name("reboot").unwrap())
                .unwrap();
            filter.load().unwrap();
        }
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap()
    };
    Sleeper(thread::spawn(start).join().unwrap())
}

#[test]
fn the_kernel_tells_filters_and_the_start_of_a_process() {
    for is_filtered in [false, true] {
        let before = SystemTime::now();
        let sleeper = sleeper(is_filtered);
        let directory = Path::new("/proc").join(sleeper.0.id().to_string());
        let containers = Containers::new("/proc".into(), false);
        let first = First { started: started(&directory).unwrap(), number: sleeper.0.id() };
        let said = containers.said(first, Clock::now()).unwrap();
        let after = SystemTime::now();
        assert_eq!(said.seccomp_mode == 2, is_filtered || own_mode() == 2, "{said:?}");
        assert!(said.seccomp_filters.is_none_or(|count| (count > 0) == (said.seccomp_mode == 2)), "{said:?}");
        let started_by = said.started_by.unwrap();
        assert!(before <= started_by && started_by <= after + Duration::from_millis(20), "{said:?}");
    }
}

/// How this process is confined, as containers often are.
fn own_mode() -> u32 {
    let containers = Containers::new("/proc".into(), false);
    containers.read(Path::new("/proc/self")).unwrap().unwrap().seccomp_mode
}
