//! Directories that look as securityfs was seen to look, on Linux 6.1 (SHA-1) and 6.12 (SHA-256).

use std::cell::Cell;

use super::*;

/// A securityfs in which these files are below `apparmor`.
fn securityfs(files: &[(&str, &str)]) -> (tempfile::TempDir, SecurityFs) {
    let temporary = tempfile::tempdir().unwrap();
    let root = temporary.path().join(APPARMOR);
    for directory in [DIRECTORIES, "features"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (path, content) in [("revision", "1\n")].iter().chain(files) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    (temporary, SecurityFs { root })
}

const SHA1: &str = "69d8beff76871d859a7f009b6e368ac75cbb15d3";
const OTHER_SHA1: &str = "92b737272b90ed3660ce9409de4b0da3a715d42a";
const SHA256: &str = "a006d81cc7f79e55ac3d1d323a0cac0869a18c394657a1eeb159596428b961ca";

fn names(names: &[&str]) -> BTreeSet<ProfileName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// What a look at `asked` finds, each in words: mode, digest, and the same of each child.
fn look(kernel: &SecurityFs, asked: &[&str]) -> Vec<String> {
    let raw = |raw: &Raw| match raw {
        Raw::Untold => "untold".to_owned(),
        raw if *raw == Raw::Sha1(Sha1::told(SHA1)) => "sha1".to_owned(),
        raw if *raw == Raw::Sha256(format!("sha256:{SHA256}").parse().unwrap()) => "sha256".to_owned(),
        Raw::Sha1(_) | Raw::Sha256(_) => "other".to_owned(),
    };
    let mode = |mode: Option<Mode>| mode.map_or("?", Mode::as_str);
    let word = |(name, present): (ProfileName, Present)| {
        let children = present.children.iter();
        let children = children.map(|(name, it)| format!(" {name} {} {}", mode(it.mode), raw(&it.raw)));
        let children: String = children.collect();
        format!("{name} {} {}{children}", mode(present.mode), raw(&present.raw))
    };
    kernel.look(&names(asked)).unwrap().into_iter().map(word).collect()
}

#[test]
fn a_profile_is_found_by_its_name_with_its_children() {
    let (_temporary, kernel) = securityfs(&[
        (
            "profiles",
            "second (complain)\na.dot/slash-x_+y (enforce)\na.dot/slash-x_+y//kid (kill)\n\
             a.dot/slash-x_+y//hat (enforce)\n/usr/bin/man (enforce)\nunknown (mixed)\n",
        ),
        ("policy/profiles/a.dot.slash-x_y.0/name", "a.dot/slash-x_+y\n"),
        ("policy/profiles/a.dot.slash-x_y.0/raw_sha1", "69d8beff76871d859a7f009b6e368ac75cbb15d3\n"),
        ("policy/profiles/a.dot.slash-x_y.0/sha1", "7df21cdf2606d326db6135e7d568186c26910865\n"),
        ("policy/profiles/a.dot.slash-x_y.0/profiles/hat.1/name", "hat\n"),
        ("policy/profiles/a.dot.slash-x_y.0/profiles/hat.1/raw_sha1", SHA1),
        ("policy/profiles/a.dot.slash-x_y.0/profiles/kid.9/name", "kid\n"),
        ("policy/profiles/a.dot.slash-x_y.0/profiles/kid.9/raw_sha1", OTHER_SHA1),
        ("policy/profiles/second.3/name", "second\n"),
        ("policy/profiles/second.3/raw_sha256", SHA256),
        ("policy/profiles/unknown.4/name", "unknown\n"),
    ]);
    let found = look(&kernel, &["a.dot/slash-x_+y", "second", "unknown", "absent", "usr/bin/man"]);
    let expected = [
        "a.dot/slash-x_+y enforce sha1 a.dot/slash-x_+y//hat enforce sha1 a.dot/slash-x_+y//kid kill other",
        "second complain sha256",
        "unknown ? untold",
    ];
    assert_eq!(found, expected);
    assert_eq!(look(&kernel, &[]), Vec::<String>::new());
}

/// Claims how often is read what changes so often, and that it is the last that counts.
#[test]
fn what_changes_while_it_is_read_is_read_again() {
    for (changes, expected) in [(0, 1), (1, 2), (3, 4), (99, LOOKS)] {
        let (revision, reads) = (Cell::new(7_u64), Cell::new(0));
        let read = || {
            reads.set(reads.get() + 1);
            if reads.get() <= changes {
                revision.set(revision.get() + 1);
            }
            Ok::<usize, ()>(reads.get())
        };
        assert_eq!(unchanged(|| Ok(revision.get()), read), Ok(expected), "{changes}");
    }
}

#[test]
fn names_that_are_mangled_alike_are_told_apart() {
    let (_temporary, kernel) = securityfs(&[
        ("profiles", "a.b (enforce)\na/b (complain)\na+b (kill)\nab (enforce)\n.lead.. (enforce)\n"),
        ("policy/profiles/a.b.3/name", "a.b\n"),
        ("policy/profiles/a.b.3/raw_sha1", SHA1),
        ("policy/profiles/a.b.4/name", "a/b\n"),
        ("policy/profiles/a.b.4/raw_sha1", OTHER_SHA1),
        ("policy/profiles/ab.2/name", "a+b\n"),
        ("policy/profiles/ab.2/raw_sha256", SHA256),
        ("policy/profiles/ab.5/name", "ab\n"),
        ("policy/profiles/lead...1/name", ".lead..\n"),
        ("policy/profiles/lead...1/raw_sha1", SHA1),
    ]);
    let found = look(&kernel, &["a.b", "a/b", "a+b", "ab", ".lead.."]);
    let expected = [
        ".lead.. enforce sha1",
        "a+b kill sha256",
        "a.b enforce sha1",
        "a/b complain other",
        "ab enforce untold",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_a_failed_load_left_behind_is_no_profile() {
    let (_temporary, kernel) = securityfs(&[
        ("profiles", "a (enforce)\n"),
        ("policy/profiles/a.9/name", "a\n"),
        ("policy/profiles/a.9/raw_sha1", OTHER_SHA1),
        ("policy/profiles/a.10/name", "a\n"),
        ("policy/profiles/a.10/raw_sha1", SHA1),
        ("policy/profiles/b.11/name", "b\n"),
        ("policy/profiles/b.11/raw_sha1", SHA1),
    ]);
    assert_eq!(look(&kernel, &["a", "b"]), ["a enforce sha1"]);
}

#[test]
fn features_are_written_as_the_parser_writes_them() {
    let (_temporary, kernel) = securityfs(&[
        ("features/policy/versions/v9", "yes\n"),
        ("features/policy/versions/v5", "yes\n"),
        ("features/policy/set_load", "yes\n"),
        ("features/capability", "0xffffff\n"),
        ("features/query/label/perms", "allow deny audit quiet\n"),
    ]);
    let expected = "capability {0xffffff\n}\npolicy {set_load {yes\n}\nversions {v5 {yes\n}\nv9 {yes\n}\n}\n}\n\
                    query {label {perms {allow deny audit quiet\n}\n}\n}\n";
    assert_eq!(kernel.features().unwrap(), expected);
}

#[test]
fn what_is_written_is_written_as_it_is() {
    let (temporary, kernel) = securityfs(&[(".replace", ""), (".remove", "")]);
    kernel.replace(b"\x04\x08\x00version").unwrap();
    kernel.remove("a//hat").unwrap();
    let read = |name| fs::read(temporary.path().join(APPARMOR).join(name)).unwrap();
    assert_eq!((read(".replace"), read(".remove")), (b"\x04\x08\x00version".to_vec(), b"a//hat".to_vec()));
}

#[test]
fn what_the_kernel_refuses_is_said_with_what_to_do() {
    let check = |file, errno: Errno, expected| {
        let path = Path::new("/sys/kernel/security/apparmor").join(file);
        let error = failed("loading a blob into", &path, errno.into()).in_full();
        assert!(error.contains(expected), "{error}");
    };
    check(REPLACE, Errno::EACCES, "CAP_MAC_ADMIN");
    check(REMOVE, Errno::EPERM, "CAP_MAC_ADMIN");
    check(REPLACE, Errno::EPROTO, "compiled for another one");
    check(REPLACE, Errno::EPROTONOSUPPORT, "compiled for another one");
    check(REPLACE, Errno::ENOMEM, "no memory");
    check(REPLACE, Errno::ENOENT, "children of children");
    check(REPLACE, Errno::EEXIST, "until some profile is removed");
    check(REMOVE, Errno::ENOENT, ".remove: No such file");
    check(PROFILES, Errno::EACCES, "profiles: Permission denied");
}

#[test]
fn a_node_without_apparmor_is_told_from_one_that_is_out_of_reach() {
    let check = |enabled: Option<&str>, expected: &str| {
        let temporary = tempfile::tempdir().unwrap();
        let parameters = temporary.path().join("sys/module/apparmor/parameters");
        fs::create_dir_all(&parameters).unwrap();
        if let Some(enabled) = enabled {
            fs::write(parameters.join("enabled"), enabled).unwrap();
        }
        let told = match SecurityFs::find(&temporary.path().join("securityfs"), &temporary.path().join("sys"))
        {
            Ok(Availability::Disabled(why)) => format!("disabled: {why}"),
            Ok(Availability::OutOfReach(why)) => format!("out of reach: {why}"),
            Ok(Availability::Enabled(_)) => "enabled".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(told.contains(expected), "{told}");
    };
    check(None, "disabled: securityfs is not mounted, and the kernel has no module apparmor");
    check(Some("N\n"), "disabled: ");
    check(Some("Y\n"), "out of reach: the kernel has it enabled, but securityfs is not mounted here");

    let (temporary, _) = securityfs(&[(".replace", "")]);
    let found = SecurityFs::find(temporary.path(), Path::new("/nonexistent"));
    match may_change_policy() {
        Ok(()) => {
            let Ok(Availability::Enabled(kernel)) = found else { panic!("{found:?}") };
            assert_eq!(kernel.root, temporary.path().join(APPARMOR));
        }
        Err(_) => assert!(found.unwrap_err().to_string().contains("CAP_MAC_ADMIN")),
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_kernel_does_not_tell_of_changes_they_are_looked_for() {
    // epoll(7) takes no regular files.
    let (temporary, kernel) = securityfs(&[(REVISION, "7\n")]);
    assert_eq!(kernel.revision().unwrap(), 7);
    let mut changes = kernel.changes();
    let early = tokio::time::timeout(POLL * 3, changes.next()).await;
    assert!(early.is_err());
    fs::write(temporary.path().join(APPARMOR).join(REVISION), "8\n").unwrap();
    assert_eq!(changes.next().await, Some(()));
    assert!(tokio::time::timeout(POLL * 3, changes.next()).await.is_err());
}
