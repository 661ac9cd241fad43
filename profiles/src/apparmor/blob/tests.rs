//! Claims about blobs: what is read of those that parsers wrote, and which are refused.

mod mutation;
mod tokens;

use std::fmt::Write as _;

use super::*;
use crate::apparmor::texts::{BLOBS, blob};
use crate::apparmor::writer::{Writer, table};

#[test]
fn what_parsers_write_is_read() {
    let mut told = String::new();
    for (name, blob) in BLOBS {
        writeln!(told, "{name}:").unwrap();
        for profile in read(blob).unwrap() {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            write!(told, "  {}: {}", text(profile.name), profile.mode).unwrap();
            told += if profile.is_hat { ", hat" } else { "" };
            told += if profile.attaches { ", attaches" } else { "" };
            told += &profile.namespace.map(|name| format!(", in {}", text(name))).unwrap_or_default();
            told += "\n";
        }
    }
    insta::assert_snapshot!(told);
}

#[test]
fn a_blob_that_is_cut_is_refused_except_between_two_profiles() {
    for name in ["two.3.0", "rules.5.4", "namespace.3.0"] {
        let whole = blob(name);
        let cuts: Vec<usize> = (0..whole.len()).filter(|length| read(&whole[..*length]).is_ok()).collect();
        assert_eq!(cuts.len(), read(whole).unwrap().len() - 1, "{name}: {cuts:?}");
    }
}

/// A profile with every part that a kernel knows.
fn everything() -> Writer {
    Writer::default()
        .header(9, Some("space"))
        .name("profile")
        .open()
        .text("demo")
        .name("rename")
        .text("other")
        .name("attach")
        .text("/demo")
        .rules(Some(&[0, 0]), &[("start", 1), ("dfa_start", 0)])
        .u32(3)
        .name("disconnected")
        .text("/lost")
        .name("disconnected_ipc")
        .text("/lost")
        .named_u32("kill", 9)
        .flags(0b11, 2)
        .named_u32("path_flags", 4)
        .u32s(4)
        .name("caps64")
        .open()
        .u32s(4)
        .close()
        .name("capsx")
        .open()
        .u32s(2)
        .close()
        .name("xattrs")
        .open()
        .array(1)
        .text("user.x")
        .end_array()
        .close()
        .name("rlimits")
        .open()
        .u32(1)
        .array(1)
        .u64(5)
        .end_array()
        .close()
        .name("secmark")
        .open()
        .array(1)
        .u8(0)
        .u8(1)
        .text("mark")
        .end_array()
        .close()
        .name("net_allowed_af")
        .array(1)
        .u16(1)
        .u16(0)
        .u16(0)
        .end_array()
        .name("policydb")
        .open()
        .rules(None, &[("start", 1)])
        .close()
        .rules(Some(&[1, 0]), &[("dfa_start", 1)])
        .name("xtable")
        .open()
        .array(2)
        .text("target")
        .text(":space\0target")
        .end_array()
        .close()
        .name("data")
        .open()
        .text("key")
        .bytes(b"\x04\x08\0profile\0\x07\x05\x02\0x\0")
        .text("empty")
        .bytes(b"")
        .close()
        .close()
}

#[test]
fn every_part_that_a_kernel_knows_is_read() {
    let blob = everything().blob;
    let expected = Unpacked {
        name: b"demo",
        namespace: Some(b"space"),
        rename: Some(b"other"),
        attaches: true,
        mode: Mode::Kill,
        is_hat: true,
    };
    assert_eq!(read(&blob), Ok(vec![expected.clone()]));
    assert_eq!(read(&blob.repeat(2)), Ok(vec![expected; 2]));
}

/// The least that is a profile.
fn least(version: u32, mode: u32) -> Writer {
    Writer::default().header(version, None).name("profile").open().text("demo").flags(0, mode).u32s(4).close()
}

#[test]
fn a_mode_is_what_the_kernel_takes_it_for() {
    for (version, packed, expected) in [
        (5, 0, Some(Mode::Enforce)),
        (7, 1, Some(Mode::Complain)),
        (9, 2, Some(Mode::Kill)),
        (0x0020_2007, 3, Some(Mode::Unconfined)),
        (7, 4, Some(Mode::User)),
        (7, 5, None),
        (FORCE_COMPLAIN | 7, 0, Some(Mode::Complain)),
        (FORCE_COMPLAIN | 7, 3, Some(Mode::Complain)),
    ] {
        let blob = least(version, packed).blob;
        let read = read(&blob).ok().map(|profiles| profiles[0].mode);
        assert_eq!(read, expected, "{version:x} {packed}");
    }
}

#[test]
fn what_is_not_known_is_refused_where_it_stands() {
    let start = || Writer::default().header(7, None).name("profile").open();
    let to_flags = || start().text("demo").flags(0, 0).u32s(4);
    let check = |blob: Vec<u8>, offset: usize, expected: &str| {
        let error = read(&blob).unwrap_err();
        assert_eq!((error.offset, error.expected), (offset, expected));
    };
    let header = Writer::default().header(7, None).blob.len();
    let header_expected = "a header with a version from 5 to 9";
    check(vec![], 0, header_expected);
    check(b"\x28\xb5\x2f\xfd".to_vec(), 0, header_expected);
    check(least(4, 0).blob, 0, header_expected);
    check(least(10, 0).blob, 0, header_expected);
    // The kernel takes a second profile without a header, and a parser writes none.
    let both = [least(7, 0).blob, least(7, 0).blob[header..].to_vec()].concat();
    check(both, least(7, 0).blob.len(), header_expected);
    check([least(7, 0).blob, vec![0]].concat(), least(7, 0).blob.len(), header_expected);
    check(Writer::default().header(7, None).name("hat").open().blob, header, "a profile");

    let at_name = start().blob.len();
    let name = "the name of a profile";
    check(start().text("").blob, at_name, name);
    check(start().text("demo\0hidden").blob, at_name, name);
    check(start().raw(5, b"\x05\0demo!").blob, at_name, name);
    // The kernel would pass over the name of the name.
    check(start().name("name").text("demo").blob, at_name, name);

    let flags = "flags, or a part of a profile before them that is known";
    let at_flags = start().text("demo").blob.len();
    check(start().text("demo").named_u32("error", 1).blob, at_flags, flags);
    check(start().text("demo").name("flags\0").open().blob, at_flags, flags);
    check(start().text("demo").name("tags").open().blob, at_flags, flags);
    let known = "flags that are known";
    let at_bits = start().text("demo").name("flags").open().blob.len();
    check(start().text("demo").flags(0x20, 0).blob, at_bits, known);

    let end = "the end of a profile, or a part of one that is known";
    let at_end = to_flags().blob.len();
    check(to_flags().name("identity").array(0).blob, at_end, end);
    check(to_flags().name("profile").open().text("hidden").blob, at_end, end);
    let later = to_flags().name("data").open().close().name("rlimits").open();
    check(later.blob, to_flags().name("data").open().close().blob.len(), end);

    let limits = |count: u16| {
        let limits = to_flags().name("rlimits").open().u32(0).array(count);
        (0..count).fold(limits, |writer, _| writer.u64(0)).end_array().close().close().blob
    };
    assert!(read(&limits(16)).is_ok());
    let at_limits = to_flags().name("rlimits").open().u32(0).blob.len();
    check(limits(17), at_limits, "16 limits of resources at most");
    check(
        to_flags().name("rlimits").open().u32(0).array(u16::MAX).u64(0).blob,
        to_flags().name("rlimits").open().u32(0).array(u16::MAX).u64(0).blob.len(),
        "a limit",
    );
    let at_value = to_flags().name("data").open().text("key").blob.len();
    let data = to_flags().name("data").open().text("key").raw(6, &u32::MAX.to_le_bytes());
    check(data.blob, at_value, "a value of data");
}

/// What is read of a profile whose rules for files are `table`, and what stands around it.
fn with_table(table: &[u8], permissions: Option<&[u32]>, start: u32) -> Result<(), &'static str> {
    let writer = least(7, 0).unclosed();
    let writer = permissions.map_or(writer.clone(), |indices| writer.permissions(indices.len()));
    let blob = writer.name("aadfa").padded(table).named_u32("dfa_start", start).close().blob;
    read(&blob).map(drop).map_err(|malformed| malformed.expected)
}

#[test]
fn a_table_that_leads_out_of_itself_is_refused() {
    let unsound = Err("a table of states that is sound");
    let sound = || table(&[0, 0, 0], &[0, 0, 0]);
    assert_eq!(with_table(&sound(), None, 2), Ok(()));
    // CVE-2026-23269
    assert_eq!(with_table(&sound(), None, 3), Err("a state to start with"));
    assert_eq!(with_table(&sound(), None, u32::MAX), Err("a state to start with"));
    let difference = 0x8000_0000;
    for (bases, defaults, is_sound) in [
        (&[0, 0][..], &[0, 1][..], true),
        (&[0], &[0], false),
        (&[0, 1], &[0, 0], false),
        (&[0, 0x00ff_ffff], &[0, 0], false),
        (&[0, 0x0100_0000], &[0, 0], false),
        (&[0, 0], &[0, 2], false),
        (&[0, 0], &[0], false),
        (&[0, difference], &[0, 0], true),
        (&[0, difference, difference], &[0, 2, 0], true),
        // CVE-2026-23407
        (&[0, difference], &[0, 2], false),
        (&[0, difference], &[0, 1], false),
        (&[0, difference, difference], &[0, 2, 1], false),
        (&[0, 0x2000_0000], &[0, 0], false),
    ] {
        let expected = if is_sound { Ok(()) } else { unsound };
        assert_eq!(with_table(&table(bases, defaults), None, 1), expected, "{bases:x?} {defaults:x?}");
    }
    assert_eq!(with_table(&sound(), Some(&[0; 1]), 1), Ok(()));
    // What is accepted is the index of a permission.
    assert_eq!(with_table(&sound(), Some(&[]), 1), unsound);
    assert_eq!(with_table(&[], None, 1), unsound);
    let change = |at: usize, value: u8| {
        let mut changed = sound();
        changed[at] = value;
        with_table(&changed, None, 1)
    };
    // The header: what it starts with, its length, its flags. Then the first column: which it is, its width.
    for (at, value) in [(0, 0), (7, 0), (7, 13), (7, 255), (4, 255), (13, 4), (17, 6), (17, 2), (19, 8)] {
        assert_eq!(change(at, value), unsound, "{value} at {at}");
    }
    let mut undeclared = table(&[0, difference], &[0, 0]);
    undeclared[13] = 0;
    assert_eq!(with_table(&undeclared, None, 1), unsound);
    // Neither how long it would be, nor by how much it is.
    assert_eq!(change(27, 255), unsound);
    assert_eq!(change(24, 255), unsound);
    assert_eq!(with_table(&sound()[..sound().len() - 8], None, 1), unsound);
    assert_eq!(with_table(&[sound(), vec![0; 8]].concat(), None, 1), unsound);
}
