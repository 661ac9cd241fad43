//! `pavise compiler` itself, with the AppArmor parser of this machine, and with programs in its place that
//! behave as no parser should.

#![expect(clippy::unwrap_used, reason = "all of this is a test")]

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PARSER: &str = "/usr/sbin/apparmor_parser";
/// Features of a kernel, as the parser's package has them.
const FEATURES: &str = "/etc/apparmor.d/abi/3.0";

/// What is awaited takes milliseconds, or a deadline of one second; machines that run tests are slow now and
/// then.
const PATIENCE: Duration = Duration::from_mins(1);

const COMPILED: u8 = 0;
const REFUSED: u8 = 1;
const OUT_OF_TIME: u8 = 2;
const OUT_OF_MEMORY: u8 = 3;
const TOO_LARGE: u8 = 4;
const CRASHED: u8 = 5;
const FAILED: u8 = 6;

/// What came over the socket.
#[derive(Debug)]
struct Answer {
    kind: u8,
    blob: Vec<u8>,
    words: String,
}

/// A directory, and the compiler that listens there.
struct Compiler {
    directory: tempfile::TempDir,
    process: Child,
}

impl Compiler {
    fn start(arguments: &[&str]) -> Self {
        assert!(
            Path::new(PARSER).exists() && Path::new(FEATURES).exists(),
            "{PARSER} and {FEATURES} are needed: install the package apparmor, as cargo xtask test does"
        );
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    fn start_in(directory: tempfile::TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pavise"));
        command.env_clear().env("RUST_LOG", "debug").args(["compiler", "--socket"]);
        command.arg(directory.path().join("socket")).args(arguments).stderr(Stdio::piped());
        let compiler = Self { process: command.spawn().unwrap(), directory };
        wait_for("the compiler to listen", || UnixStream::connect(compiler.path("socket")).is_ok());
        compiler
    }

    /// With this script in the place of the parser.
    fn start_with(script: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let parser = directory.path().join("parser");
        // The compiler asks for the version first.
        let script = format!("#!/bin/sh\n[ \"$1\" != --version ] || exec echo version 0\n{script}\n");
        fs::write(&parser, script).unwrap();
        fs::set_permissions(&parser, Permissions::from_mode(0o755)).unwrap();
        let parser = format!("--parser={}", parser.display());
        Self::start_in(directory, &[arguments, &[&parser]].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("socket")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `text`, and does not wait for what comes back.
    fn send(&self, text: &[u8]) -> UnixStream {
        let mut stream = self.connect();
        stream.write_all(&request(text)).unwrap();
        stream
    }

    fn compile(&self, text: &[u8]) -> Answer {
        read_answer(&mut self.send(text))
    }

    /// Claims that `text` is answered so, with these words among those of the parser.
    fn check(&self, text: &str, kind: u8, words: &str) -> Answer {
        let answer = self.compile(text.as_bytes());
        assert!(answer.kind == kind && answer.words.contains(words), "{text:.200}: {answer:.200?}");
        answer
    }

    /// The processes that it has started and not waited for.
    fn children(&self) -> Vec<u32> {
        let number = self.process.id();
        let children = fs::read_to_string(format!("/proc/{number}/task/{number}/children")).unwrap();
        children.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// Sends `text`, which is worked on from then on.
    fn send_and_wait_for_work(&self, text: &[u8]) -> (UnixStream, u32) {
        let stream = self.send(text);
        wait_for("a process for the text", || !self.children().is_empty());
        (stream, self.children()[0])
    }

    fn signal(&self, signal: &str) {
        let number = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &number]).status().unwrap().success());
    }
}

impl Drop for Compiler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn request(text: &[u8]) -> Vec<u8> {
    let features = fs::read(FEATURES).unwrap();
    let head =
        [features.len(), text.len()].map(|length| u32::try_from(length).unwrap().to_be_bytes()).concat();
    [&head, &features[..], text].concat()
}

fn read_answer(stream: &mut UnixStream) -> Answer {
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    let length = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap()) as usize;
    let (mut blob, mut words) = (vec![0; length(1)], vec![0; length(5)]);
    stream.read_exact(&mut blob).unwrap();
    stream.read_exact(&mut words).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "one answer per connection");
    Answer { kind: head[0], blob, words: String::from_utf8(words).unwrap() }
}

/// Whether the other side says nothing and hangs up. A connection is reset if it has not read everything.
fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waiting for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn has(blob: &[u8], name: &str) -> bool {
    blob.windows(name.len()).any(|window| window == name.as_bytes())
}

/// A profile whose automaton has more states than any machine has memory.
fn explosion() -> String {
    format!("profile x {{ /{{,**}}a{} r, }}", "?".repeat(40))
}

#[test]
fn texts_are_compiled_however_their_lines_end() {
    let compiler = Compiler::start(&[]);
    for text in [
        "profile one { /etc/x r, }\n",
        "profile one { /etc/x r, }",
        "profile one {\r\n  /etc/x r,\r\n}\r\n",
        "#include <tunables/global>\nprofile one { #include <abstractions/base>\n }",
        "abi <abi/3.0>,\ninclude <tunables/global>\nprofile one { include <abstractions/base>\n }",
        "profile one { file, profile child { } ^hat { } }\nprofile two { }",
        "profile one { include if exists <local/one>\n }",
        "profile one { # ü\n }\n# no line ends here",
    ] {
        let answer = compiler.check(text, COMPILED, "");
        assert!(has(&answer.blob, "one\0"), "{text}: {answer:?}");
    }
    for text in ["", "\n", "# a comment"] {
        assert_eq!(compiler.check(text, COMPILED, "").blob, b"");
    }
    let answer =
        compiler.check("profile one { /x ux, }", COMPILED, "Warning from /dev/stdin (/dev/stdin line 1): ");
    assert!(!answer.blob.is_empty());
}

#[test]
fn one_text_makes_one_policy_every_time() {
    let compiler = Compiler::start(&[]);
    let text = b"include <tunables/global>\nprofile one { include <abstractions/base>\n @{HOME}/** r, }";
    let [first, second] = [compiler.compile(text), compiler.compile(text)];
    assert_eq!(first.kind, COMPILED);
    assert_eq!(first.blob, second.blob);
}

#[test]
fn what_is_wrong_with_a_text_is_said_in_the_parsers_words() {
    let compiler = Compiler::start(&[]);
    for (text, words) in [
        (
            "profile x {\n  nonsense\n}\n",
            "error for /dev/stdin in profile /dev/stdin at line 3: syntax error",
        ),
        ("profile x {\n", "syntax error, unexpected end of file"),
        ("profile x { include <abstractions/nosuch>\n}", "Could not open 'abstractions/nosuch'"),
        ("include if exists <nosuch>\ninclude <nosuch>", "Could not open 'nosuch'"),
        ("abi <abi/9.0>,\nprofile x { }", "Could not open 'abi/9.0'"),
        ("profile x { @{NOSUCH} r, }", "NOSUCH"),
        ("profile x { capability nosuch, }", "nosuch"),
        ("profile x { /a[ r, }", "Regex grouping error"),
        ("profile x { }\nprofile x { }", "Multiple definitions for profile x"),
        ("profile x { /x rwxx, }", "Invalid mode"),
        (&"profile x {\n".repeat(20_000), "line "),
        ("\u{1}\u{2}\u{feff}", "line 1: Lexer found unexpected character"),
    ] {
        assert_eq!(compiler.check(text, REFUSED, words).blob, b"");
    }
}

#[test]
fn nothing_but_apparmors_own_files_can_be_included() {
    let compiler = Compiler::start(&[]);
    let secret = compiler.path("secret");
    fs::write(&secret, "xyzzy { }\n").unwrap();
    let fifo = compiler.path("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let socket = compiler.path("socket");
    let paths = [&secret, &fifo, &socket].map(|path| path.display().to_string());
    let others = [
        "/etc/hostname",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/self/maps",
        "/proc/1/status",
        "/dev/zero",
        "/dev/urandom",
        "/sys/kernel/mm",
        "/etc",
    ];
    let climb = format!("/etc/apparmor.d/../..{}", paths[0]);
    for path in paths.iter().map(String::as_str).chain(others).chain([climb.as_str()]) {
        for text in [
            format!("include \"{path}\"\nprofile x {{ }}"),
            format!("profile x {{\n  #include <{path}>\n}}"),
            format!("abi \"{path}\",\nprofile x {{ }}"),
        ] {
            let answer = compiler.check(&text, REFUSED, "Could not open");
            assert!(!answer.words.contains("xyzzy"), "{text}: {answer:?}");
        }
    }
    // They are not there, as far as a text can tell.
    compiler.check(&format!("include if exists \"{}\"\nprofile x {{ }}", paths[0]), COMPILED, "");
}

#[test]
fn what_includes_itself_comes_to_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let includes = directory.path().join("includes");
    for name in ["abi", "abstractions", "tunables"] {
        fs::create_dir_all(includes.join(name)).unwrap();
    }
    let loops = "include <abstractions/again>\ninclude <abstractions/other>\n";
    fs::write(includes.join("abstractions/again"), loops).unwrap();
    fs::write(includes.join("abstractions/other"), loops).unwrap();
    let includes = format!("--includes={}", includes.display());
    let compiler = Compiler::start(&["--deadline=1s", &includes]);
    // How it ends is the parser's business.
    let answer = compiler.compile(b"profile x { include <abstractions/again>\n }");
    assert!([COMPILED, REFUSED, OUT_OF_TIME].contains(&answer.kind), "{answer:?}");
    // What a text can include besides: itself, and pipes that nobody writes to.
    for number in 0..3 {
        let text = format!("include \"/proc/self/fd/{number}\"\nprofile x {{ }}");
        let answer = compiler.compile(text.as_bytes());
        assert!([COMPILED, REFUSED, OUT_OF_TIME].contains(&answer.kind), "{text}: {answer:?}");
    }
    compiler.check("profile x { }", COMPILED, "");
}

#[test]
fn what_takes_too_much_memory_hits_the_limit() {
    let compiler = Compiler::start(&["--memory=32", "--deadline=10m"]);
    compiler.check(&explosion(), OUT_OF_MEMORY, "");
    let mut rules = "profile x {\n".to_owned();
    let mut number = 0;
    while rules.len() < (1 << 20) - 100 {
        writeln!(rules, "  /usr/lib/{number}/** r,").unwrap();
        number += 1;
    }
    compiler.check(&(rules + "}\n"), OUT_OF_MEMORY, "");
    compiler.check("profile x { }", COMPILED, "");
}

#[test]
fn what_takes_too_much_time_hits_the_limit() {
    let compiler = Compiler::start(&["--memory=60000", "--deadline=1s"]);
    compiler.check(&explosion(), OUT_OF_TIME, "");
    assert_eq!(compiler.children(), []);

    let compiler = Compiler::start_with("ulimit -S -t 1; while :; do :; done", &["--deadline=10m"]);
    compiler.check("", OUT_OF_TIME, "");
    assert_eq!(compiler.children(), []);
}

#[test]
fn a_parser_that_gets_no_processor_says_nothing_of_its_text() {
    for script in ["exec sleep 1000", "exec >&- 2>&-; exec sleep 1000"] {
        let compiler = Compiler::start_with(script, &["--deadline=1s"]);
        let answer = compiler.compile(b"text");
        assert!(answer.kind == FAILED && answer.words.contains("is the node overloaded?"), "{answer:?}");
        assert_eq!(compiler.children(), [], "{script}");
    }
}

#[test]
fn a_parser_that_misbehaves_is_ended_and_told_apart() {
    for (script, kind, words) in [
        ("while :; do :; done", OUT_OF_TIME, ""),
        ("while :; do echo endless words >&2; done", OUT_OF_TIME, ""),
        ("while :; do echo endless policy; done", TOO_LARGE, ""),
        ("echo 'no such rule' >&2; exit 3", REFUSED, "no such rule"),
        ("exit 1", REFUSED, ""),
        ("echo \"what():  std::bad_alloc\" >&2; exit 1", OUT_OF_MEMORY, ""),
        ("ulimit -S -s 16; f() { f; }; f", CRASHED, ""),
        ("exec /nowhere", REFUSED, "nowhere"),
        ("echo 'none here' >&2; exit 125", FAILED, "none here"),
    ] {
        let deadline = if kind == OUT_OF_TIME { "--deadline=1s" } else { "--deadline=10m" };
        let compiler = Compiler::start_with(script, &[deadline]);
        let answer = compiler.compile(b"text");
        assert!(answer.kind == kind && answer.words.contains(words), "{script}: {answer:.200?}");
        assert_eq!(compiler.children(), [], "{script}");
    }
}

#[test]
fn a_parser_that_somebody_ended_is_not_the_texts_fault() {
    let compiler = Compiler::start_with("exec sleep 1000", &[]);
    let (mut stream, child) = compiler.send_and_wait_for_work(b"text");
    assert!(Command::new("kill").args(["-KILL", &child.to_string()]).status().unwrap().success());
    let answer = read_answer(&mut stream);
    assert!(answer.kind == FAILED && answer.words.contains("too little memory"), "{answer:?}");
}

#[test]
fn words_are_cut_and_all_of_a_policy_comes() {
    let compiler = Compiler::start_with("exec cat", &[]);
    let text = "x".repeat((1 << 20) - 1) + "\n";
    let is_whole = compiler.check(&text, COMPILED, "").blob == text.as_bytes();
    assert!(is_whole, "it is given the text, and no more");
    let compiler = Compiler::start_with("exec cat >&2", &[]);
    assert!(compiler.check(&text, COMPILED, "").words == text[..64 << 10]);
}

#[test]
fn a_parser_that_is_taken_over_can_do_nothing_but_answer() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, "xyzzy\n").unwrap();
    let (secret, made) = (secret.display(), outside.path().join("made"));
    let script = format!(
        "if {{ read word < {secret}; }}; then echo read $word; fi
         if {{ read word < /proc/$PPID/environ; }}; then echo read environment; fi
         if {{ echo x > {made}; }}; then echo wrote; fi
         if {{ echo x > {secret}; }}; then echo wrote; fi
         if kill -TERM $PPID; then echo signalled; fi
         ulimit -c; ulimit -f; ulimit -p; ulimit -n
         (echo forked)",
        made = made.display()
    );
    let compiler = Compiler::start_with(&script, &[]);
    let answer = compiler.compile(b"");
    assert_eq!(answer.kind, REFUSED, "{answer:?}");
    assert!(answer.words.contains("Cannot fork"), "{answer:?}");
    assert!(!made.exists() && fs::read_to_string(outside.path().join("secret")).unwrap() == "xyzzy\n");

    let compiler = Compiler::start_with(&script.replace("(echo forked)", "exec env"), &[]);
    let answer = compiler.compile(b"");
    let said = String::from_utf8(answer.blob).unwrap();
    assert!(said.starts_with("0\n0\n0\n64\n"), "{said} {}", answer.words);
    let environment: Vec<&str> = said.lines().skip(4).filter(|line| !line.starts_with("PWD=")).collect();
    assert_eq!(environment, ["LANG=C"]);

    let compiler = Compiler::start_with("exec cat /proc/self/status", &[]);
    let status = compiler.compile(b"");
    assert_eq!(status.kind, REFUSED, "/proc is not among what it can read: {status:?}");
    let own = fs::read_to_string(format!("/proc/{}/status", compiler.process.id())).unwrap();
    assert!(own.contains("NoNewPrivs:\t1") && own.contains("Seccomp:\t2"), "{own}");
}

#[test]
fn a_parser_that_is_taken_over_reaches_no_other_process_and_leaves_nothing() {
    for command in [
        "prlimit --pid=$PPID --nofile=0",
        "prlimit --pid=$PPID --as=0",
        "perl -e 'setpgrp(0, getpgrp(getppid())) or die $!'",
        "perl -e 'fcntl(STDIN, 8, getppid()) or die $!'",
        "renice -n 19 -p $PPID",
        "ionice -c 3 -p $PPID",
        "chrt --idle --pid 0 $PPID",
        "taskset --pid 1 $PPID",
        "ipcmk --shmem 4096",
    ] {
        let compiler = Compiler::start_with(&format!("exec {command}"), &[]);
        let answer = compiler.compile(b"");
        let is_refused = answer.kind == REFUSED && answer.words.contains("Operation not permitted");
        assert!(is_refused, "{command}: {answer:?}");
    }
    // Whatever group it is in, it is ended.
    let script = "exec perl -e 'setpgrp(0, getpgrp(getppid())); sleep 1000'";
    let compiler = Compiler::start_with(script, &["--deadline=1s"]);
    assert_eq!(compiler.compile(b"").kind, FAILED);
    assert_eq!(compiler.children(), []);
}

#[test]
fn who_says_nothing_or_nonsense_keeps_nobody_from_being_served() {
    let compiler = Compiler::start(&[]);
    // More than are held at a time: the last of them waits for the first to be given up.
    let silent: Vec<UnixStream> = (0..40).map(|_| compiler.connect()).collect();
    compiler.check("profile x { }", COMPILED, "");
    drop(silent);
    let whole = request(b"profile x { }");
    for length in [0, 1, 4, 8, 9, whole.len() - 1] {
        let mut stream = compiler.connect();
        stream.write_all(&whole[..length]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_closed(&mut stream), "{length} bytes are no request");
    }
    for head in [[0, 1, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 16, 0, 1], [255; 8]] {
        let mut stream = compiler.connect();
        stream.write_all(&head).unwrap();
        assert!(is_closed(&mut stream), "{head:?} announces too much");
    }
    let mut stream = compiler.connect();
    stream.write_all(&[&whole[..], b"more"].concat()).unwrap();
    assert!(is_closed(&mut stream), "more than one request is none");
    compiler.check("profile x { }", COMPILED, "");
}

#[test]
fn a_hundred_texts_at_once_are_all_compiled() {
    let compiler = Compiler::start(&[]);
    std::thread::scope(|scope| {
        let compiler = &compiler;
        let sent: Vec<_> = (0..100)
            .map(|number| {
                scope.spawn(move || {
                    let name = format!("profile-{number}");
                    let mut stream = compiler.send(format!("profile {name} {{ }}").as_bytes());
                    (name, read_answer(&mut stream))
                })
            })
            .collect();
        for answer in sent {
            let (name, answer) = answer.join().unwrap();
            assert!(answer.kind == COMPILED && has(&answer.blob, &format!("{name}\0")), "{name}: {answer:?}");
        }
    });
    assert_eq!(compiler.children(), []);
}

#[test]
fn texts_are_compiled_side_by_side_and_no_more_than_are_allowed() {
    let compiler = Compiler::start_with("exec sleep 1000", &["--at-once=3", "--deadline=10m"]);
    let streams: Vec<UnixStream> = (0..6).map(|_| compiler.send(b"text")).collect();
    wait_for("three processes", || compiler.children().len() == 3);
    let first = compiler.children();
    // Whoever hangs up makes room for the next, also if it was not its turn yet.
    let mut streams = streams.into_iter();
    drop(streams.next_back());
    drop(streams.next());
    wait_for("the fourth", || {
        let now = compiler.children();
        now.len() == 3 && now != first
    });
    drop(streams);
    wait_for("the end of all", || compiler.children().is_empty());
}

#[test]
fn a_text_that_nobody_waits_for_is_worked_on_no_longer() {
    let compiler = Compiler::start_with("exec sleep 1000", &["--deadline=10m"]);
    let (stream, child) = compiler.send_and_wait_for_work(b"text");
    drop(stream);
    wait_for("the end of the parser", || !Path::new(&format!("/proc/{child}")).exists());
    assert_eq!(compiler.children(), []);
}

#[test]
fn its_end_is_that_of_its_children_and_leaves_nothing() {
    let mut compiler = Compiler::start_with("exec sleep 1000", &["--deadline=10m"]);
    let (_stream, child) = compiler.send_and_wait_for_work(b"text");
    compiler.signal("-TERM");
    assert!(compiler.process.wait().unwrap().success());
    wait_for("the end of the parser", || !Path::new(&format!("/proc/{child}")).exists());
    let left: Vec<_> =
        fs::read_dir(compiler.directory.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["parser"]);
}

#[test]
fn a_crash_ends_its_children_and_the_next_one_takes_its_place() {
    let mut compiler = Compiler::start_with("exec sleep 1000", &["--deadline=10m"]);
    let (_stream, child) = compiler.send_and_wait_for_work(b"text");
    compiler.signal("-KILL");
    compiler.process.wait().unwrap();
    wait_for("the end of the parser", || !Path::new(&format!("/proc/{child}")).exists());
    assert!(compiler.path("socket").exists(), "a crash leaves the socket");
    assert!(UnixStream::connect(compiler.path("socket")).is_err());

    // What a crash between two steps would leave as well.
    drop(UnixListener::bind(compiler.path("socket.new")).unwrap());
    let socket = format!("--socket={}", compiler.path("socket").display());
    let mut next = Command::new(env!("CARGO_BIN_EXE_pavise"));
    compiler.process = next.env_clear().args(["compiler", &socket]).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the next one to listen", || UnixStream::connect(compiler.path("socket")).is_ok());
    compiler.check("profile x { }", COMPILED, "");
    assert!(!compiler.path("socket.new").exists());
    // The agent is another user, with no capability.
    let mode = fs::metadata(compiler.path("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn it_does_not_start_where_it_could_not_serve() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "mine").unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    for (socket, parser, expected) in [
        (at("file"), PARSER, "what is there is no socket"),
        (at("nowhere/socket"), PARSER, "is its directory there, and may this user write to it?"),
        (at("socket"), "/nowhere/parser", "running /nowhere/parser; it comes with the package apparmor"),
        (at("socket"), "/bin/false", "/bin/false --version: exit status: 1"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pavise"));
        command.env_clear().args(["compiler", "--socket", &socket, "--parser", parser]);
        let output = command.output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && words.contains(expected), "{words}");
    }
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "mine");
}
