//! Every AppArmor profile that Debian has, through all that a text goes through before it is loaded: its
//! words are read, `pavise compiler` compiles it, and what comes of that is judged, also where the words
//! alone would refuse it. Most are for programs of the node, which is what they are refused for.
//!
//! The program is the one that `cargo xtask test` has just built for the unit tests; who runs this alone
//! builds it first. `INSTA_UPDATE=always cargo test -p pavise-testbed --test corpus` writes the snapshot
//! anew.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use profiles::apparmor::text::{Scanned, scan};
use profiles::apparmor::{judge, said};
use profiles::diagnostic::Diagnostic;
use profiles::digest::Digest;
use testbed::debian::{self, Apparmor};

/// Where profiles are in Debian's packages.
const PROFILES: &[&str] = &["etc/apparmor.d", "usr/share/apparmor/extra-profiles"];
/// What is there besides: what profiles include.
const INCLUDED: &[&str] = &["abi", "abstractions", "local", "tunables"];

/// Kinds of answers of the compiler (agent/src/compiler/protocol.rs).
const COMPILED: u8 = 0;
const REFUSED: u8 = 1;

/// `pavise compiler`, with Debian's parser, and the includes of all packages.
struct Compiler {
    process: Child,
    socket: PathBuf,
    features: Vec<u8>,
    _directory: tempfile::TempDir,
}

impl Compiler {
    fn start(apparmor: &Apparmor) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let files = apparmor.directory.join("apparmor");
        let includes = directory.path().join("includes");
        installed(&apparmor.directory, &includes);
        let mut command = Command::new(pavise());
        command.arg("compiler").arg("--socket").arg(&socket).arg("--includes").arg(&includes);
        command.arg("--parser").arg(files.join("sbin/apparmor_parser")).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let features = fs::read(includes.join("abi/3.0")).unwrap();
        let compiler = Self { process, socket, features, _directory: directory };
        let start = Instant::now();
        while UnixStream::connect(&compiler.socket).is_err() {
            assert!(start.elapsed() < Duration::from_mins(1), "the compiler does not start");
            thread::sleep(Duration::from_millis(10));
        }
        compiler
    }

    /// What the agent would find, if it had this text compiled, and nothing refused it before.
    fn judge(&self, text: &str, scanned: &Scanned) -> Vec<Diagnostic> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        for part in [self.features.as_slice(), text.as_bytes()] {
            stream.write_all(&u32::try_from(part.len()).unwrap().to_be_bytes()).unwrap();
        }
        stream.write_all(&self.features).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let (head, rest) = answer.split_at(9);
        let length = u32::from_be_bytes(head[1..5].try_into().unwrap()) as usize;
        let (blob, words) = rest.split_at(length);
        let words = String::from_utf8_lossy(words);
        match head[0] {
            COMPILED => match judge(Digest::of(text.as_bytes()), &scanned.names, blob) {
                Ok((_, warnings)) => warnings.into_iter().chain(said::warnings(text, &words)).collect(),
                Err(findings) => findings,
            },
            REFUSED => said::findings(text, &words),
            kind => panic!("the compiler answers with {kind}: {words}"),
        }
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Makes `includes` what `/etc/apparmor.d` is on a machine that has all of the packages: their files, and for
/// each profile an empty file of the machine's own, which the packages make when they are installed.
fn installed(packages: &Path, includes: &Path) {
    fs::create_dir_all(includes.join("local")).unwrap();
    for package in fs::read_dir(packages).unwrap() {
        let files = package.unwrap().path().join("etc/apparmor.d");
        let copied = Command::new("cp").arg("-R").arg(files.join(".")).arg(includes).status().unwrap();
        assert!(copied.success(), "{} can't be copied", files.display());
    }
    for (_, profile) in files(packages) {
        fs::write(includes.join("local").join(profile.file_name().unwrap()), "").unwrap();
    }
}

/// The program, which the unit tests have left beside this one.
fn pavise() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let pavise = this.ancestors().nth(2).unwrap().join("pavise");
    assert!(pavise.exists(), "{} is not there: cargo build --package pavise makes it", pavise.display());
    pavise
}

/// All profiles, by their names below `directory`.
fn files(directory: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .flat_map(|package| PROFILES.iter().map(move |part| package.as_ref().unwrap().path().join(part)))
        .filter(|path| path.is_dir())
        .collect();
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                let name = entry.path().strip_prefix(directory).unwrap().display().to_string();
                found.push((name, entry.path()));
            } else if entry.file_type().unwrap().is_dir()
                && !INCLUDED.iter().any(|no| entry.file_name() == *no)
            {
                waiting.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn codes(findings: &[Diagnostic]) -> String {
    let codes: BTreeSet<&str> = findings.iter().map(|finding| finding.code.as_str()).collect();
    if codes.is_empty() { "accepted".to_owned() } else { Vec::from_iter(codes).join(", ") }
}

/// What is said of one file.
fn verdict(compiler: &Compiler, name: &str, path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let scanned = scan(&text);
    let found = compiler.judge(&text, &scanned);
    for finding in &found {
        let shown = finding.to_string();
        assert!(
            !shown.contains("can't be read"),
            "what Debian's parser makes of {name} is not read: {shown}"
        );
    }
    format!("{name}\n  text: {}\n  compiled: {}", codes(&scanned.findings), codes(&found))
}

#[test]
fn what_is_said_of_every_profile_of_debian_is_what_was_reviewed() {
    let apparmor = debian::apparmor().unwrap();
    let packages = apparmor.packages.join(" ");
    let compiler = Compiler::start(&apparmor);
    let files = files(&apparmor.directory);
    assert!(files.len() > 100, "{} profiles are not all that Debian has", files.len());

    let (waiting, verdicts) = (Mutex::new(files.iter().enumerate()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let next = waiting.lock().unwrap().next();
            let Some((index, (name, path))) = next else { return };
            let verdict = verdict(&compiler, name, path);
            verdicts.lock().unwrap().push((index, verdict));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap();
    verdicts.sort();
    let verdicts: Vec<String> = verdicts.into_iter().map(|(_, verdict)| verdict).collect();

    let reviewed =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/snapshots/debian.snap"));
    if !reviewed.is_ok_and(|reviewed| reviewed.contains(&packages)) {
        eprintln!(
            "Debian has other packages now than those that were reviewed: {packages}. Write the snapshot anew with \
             INSTA_UPDATE=always cargo test -p pavise-testbed --test corpus, look at what git diff shows, and commit it."
        );
    }
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!("debian", format!("{packages}\n\n{}", verdicts.join("\n")));
    });
}
