//! Drafts on a real file system.

use std::fs;
use std::mem::ManuallyDrop;
use std::os::unix::fs::symlink;

use super::super::tests::scene;
use super::*;

/// The first draft's name.
const FIRST: &str = "~pavise0";

#[test]
fn a_replacement_leaves_nothing_behind() {
    let scene = scene();
    fs::write(scene.path(FIRST), "left over").unwrap();
    scene.directory.replace("f", b"new").unwrap();
    assert_eq!(fs::read(scene.path("f")).unwrap(), b"new");
    assert!(!scene.path(FIRST).exists());
}

#[test]
fn a_replacement_that_fails_leaves_the_old_content() {
    let scene = scene();
    fs::write(scene.path("f"), "old").unwrap();
    fs::create_dir(scene.path(FIRST)).unwrap();
    let error = scene.directory.replace("f", b"new").unwrap_err();
    assert!(error.to_string().starts_with("removing "), "{error}");
    assert_eq!(fs::read(scene.path("f")).unwrap(), b"old");
}

#[test]
fn what_can_not_be_replaced_is_left_alone_and_nothing_beside_it() {
    let scene = scene();
    fs::create_dir(scene.path("f")).unwrap();
    scene.directory.replace("f", b"new").unwrap_err();
    assert!(scene.path("f").is_dir() && !scene.path(FIRST).exists());
}

#[test]
fn whatever_holds_nothing_is_replaced_if_told_so() {
    let scene = scene();
    fs::write(scene.path("target"), "old").unwrap();
    symlink("target", scene.path("link")).unwrap();
    fs::create_dir(scene.path("empty")).unwrap();
    fs::create_dir_all(scene.path("full/inner")).unwrap();
    for (name, expected) in [("link", true), ("empty", true), ("absent", true), ("full", false)] {
        let draft = scene.directory.draft(0, name, b"new").unwrap();
        assert_eq!(draft.replace_any().unwrap(), expected, "{name}");
        let is_file = fs::symlink_metadata(scene.path(name)).unwrap().is_file();
        assert_eq!(is_file, expected, "{name}");
    }
    assert_eq!(fs::read(scene.path("target")).unwrap(), b"old");
    assert!(scene.path("full/inner").exists() && !scene.path(FIRST).exists());
}

#[test]
fn nothing_is_created_in_the_place_of_something() {
    let scene = scene();
    for (content, is_new) in [("first", true), ("second", false)] {
        let draft = scene.directory.draft(0, "f", content.as_bytes()).unwrap();
        assert_eq!(draft.create().unwrap(), is_new);
        assert_eq!(fs::read(scene.path("f")).unwrap(), b"first");
        assert!(!scene.path(FIRST).exists());
    }
}

#[test]
fn only_what_a_crash_left_is_swept() {
    let scene = scene();
    // A crash runs no destructor.
    let draft = |number| ManuallyDrop::new(scene.directory.draft(number, "f", b"new").unwrap());
    let _crashed = [0, 7].map(draft);
    let others = ["~pavise", "~pavise-7", "~pavisé", "pavise0", "f"];
    for name in others {
        fs::write(scene.path(name), "").unwrap();
    }
    assert!(scene.path(FIRST).exists() && scene.path("~pavise7").exists());
    scene.directory.sweep().unwrap();
    let mut left: Vec<_> =
        fs::read_dir(scene.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    let mut others = others.to_vec();
    others.sort_unstable();
    assert_eq!(left, others);
}

#[test]
fn a_kernel_is_known_by_its_version() {
    for (release, expected) in
        [("5.8.0", true), ("6.1.0-13-amd64", true), ("10.0", true), ("6.18-rc1", true), ("5.7.19", false)]
    {
        assert_eq!(release.parse().is_ok_and(tells_failures), expected, "{release}");
    }
    assert!(!["4.18.0-553.el8.x86_64", ""].iter().any(|release| release.parse().is_ok_and(tells_failures)));
}
