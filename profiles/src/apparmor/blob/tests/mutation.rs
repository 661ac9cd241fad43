//! Blobs that nobody wrote: none is too much for the reader, and in none a profile is hidden.

use std::cell::Cell;
use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::everything;
use super::tokens::{namespaces, profiles, tokens};
use crate::apparmor::blob::read;
use crate::apparmor::judge;
use crate::apparmor::name::ProfileName;
use crate::apparmor::policy::Mode;
use crate::apparmor::texts::BLOBS;
use crate::digest::Digest;
use crate::seed::runner;

/// Something done to a blob. Where it is done is told in elements, as most bytes are in tables.
#[derive(Clone, Debug)]
enum Change {
    /// A bit near the start of an element.
    Flip(Index, usize, u8),
    /// What may be a length is another.
    Number(Index, Vec<u8>),
    /// What comes after is gone.
    Cut(Index, usize),
    /// Elements, once more, or elsewhere.
    Copy(Index, Index, Index),
    /// Elements are gone.
    Remove(Index, Index),
    /// From there on it is another blob from somewhere on.
    Splice(Index, &'static [u8], Index),
    /// A byte at any place.
    Byte(Index, u8),
}

fn blobs() -> impl Strategy<Value = Vec<u8>> {
    let written: Vec<&[u8]> = BLOBS.iter().map(|(_, blob)| *blob).collect();
    prop_oneof![
        Just(everything().blob),
        Just(everything().blob.repeat(2)),
        select(written).prop_map(<[u8]>::to_vec)
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let extreme = [0_u32, 1, 2, 3, 5, 9, 0xfe, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
    let others: Vec<&[u8]> = BLOBS.iter().map(|(_, blob)| *blob).collect();
    let index = any::<Index>;
    prop_oneof![
        4 => (index(), 0..16_usize, 0..8_u8).prop_map(|(at, byte, bit)| Change::Flip(at, byte, bit)),
        3 => (index(), select(extreme.to_vec()), select(vec![1_usize, 2, 4]))
            .prop_map(|(at, number, width)| Change::Number(at, number.to_le_bytes()[..width].to_vec())),
        1 => (index(), 0..8_usize).prop_map(|(at, more)| Change::Cut(at, more)),
        4 => (index(), index(), index()).prop_map(|(from, to, at)| Change::Copy(from, to, at)),
        2 => (index(), index()).prop_map(|(from, to)| Change::Remove(from, to)),
        2 => (index(), select(others), index()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
    ]
}

fn apply(blob: &mut Vec<u8>, change: &Change) {
    let mut starts: Vec<usize> = tokens(blob).0.iter().map(|token| token.start).collect();
    starts.push(blob.len());
    let range = |from: &Index, to: &Index| {
        let (from, to) = (*from.get(&starts), *to.get(&starts));
        from.min(to)..from.max(to)
    };
    let set = |blob: &mut Vec<u8>, at: usize, value: u8| {
        if let Some(byte) = blob.get_mut(at) {
            *byte = value;
        }
    };
    match change {
        Change::Flip(at, more, bit) => {
            let at = at.get(&starts) + more;
            if let Some(byte) = blob.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Change::Number(at, bytes) => {
            let at = at.get(&starts) + 1;
            bytes.iter().zip(at..).for_each(|(byte, at)| set(blob, at, *byte));
        }
        Change::Cut(at, more) => blob.truncate(at.get(&starts) + more),
        Change::Copy(from, to, at) => {
            let copy = blob[range(from, to)].to_vec();
            let at = *at.get(&starts);
            blob.splice(at..at, copy);
        }
        Change::Remove(from, to) => drop(blob.drain(range(from, to))),
        Change::Splice(at, other, from) => {
            let others = tokens(other).0;
            blob.truncate(*at.get(&starts));
            blob.extend(&other[from.get(&others).start..]);
        }
        Change::Byte(at, value) => {
            if !blob.is_empty() {
                let at = at.index(blob.len());
                set(blob, at, *value);
            }
        }
    }
}

/// The least bytes that a profile has, with its header.
const LEAST: usize = 80;

/// The profiles that the text of `blob` could declare.
fn declared(blob: &[u8]) -> BTreeSet<ProfileName> {
    let name = |name: &[u8]| ProfileName::new(std::str::from_utf8(name).ok()?).ok();
    profiles(&tokens(blob).0).into_iter().filter_map(name).collect()
}

/// Reads `blob`, whether it can be. What is read is all that a kernel could find in it, and what is accepted
/// is what was declared.
fn check(blob: &[u8], names: &BTreeSet<ProfileName>) -> Result<bool, TestCaseError> {
    let read = match read(blob) {
        Ok(read) => read,
        Err(malformed) => {
            prop_assert!(malformed.offset <= blob.len(), "{}", malformed);
            return Ok(false);
        }
    };
    let (tokens, is_whole) = tokens(blob);
    prop_assert!(is_whole, "after {:?}", tokens.last());
    let found: Vec<&[u8]> = read.iter().map(|profile| profile.name).collect();
    prop_assert_eq!(profiles(&tokens), found);
    let spaces: Vec<&[u8]> = read.iter().filter_map(|profile| profile.namespace).collect();
    prop_assert_eq!(namespaces(&tokens), spaces);
    prop_assert!(read.capacity() * LEAST / 2 <= blob.len(), "{} for {}", read.capacity(), blob.len());
    if let Ok((policy, _)) = judge(Digest::of(b""), names, blob) {
        prop_assert!(policy.profiles.keys().eq(names));
        prop_assert_eq!(&declared(blob), names);
        prop_assert!(
            read.iter().all(|profile| profile.namespace.is_none() && profile.mode != Mode::Unconfined)
        );
        let children: usize = policy.profiles.values().map(|contents| contents.children.len()).sum();
        prop_assert_eq!(names.len() + children, read.len());
    }
    Ok(true)
}

#[test]
fn no_profile_hides_in_what_is_still_read() {
    let (read, refused) = (Cell::new(0), Cell::new(0));
    let judge = |(mut blob, changes): (Vec<u8>, Vec<Change>)| {
        let declared = declared(&blob);
        for change in &changes {
            apply(&mut blob, change);
        }
        let count = if check(&blob, &declared)? { &read } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    };
    runner(3_000).run(&(blobs(), vec(change(), 1..4)), judge).unwrap_or_else(|error| panic!("{error}"));
    let (read, refused) = (read.get(), refused.get());
    assert!(read > 100 && refused > 1_000, "{read} read, {refused} refused");
}

#[test]
fn what_is_no_blob_is_refused() {
    let elements = select(vec![
        &b"\x04\x08\0version\0\x02\x07\0\0\0"[..],
        b"\x04\x08\0profile\0\x07",
        b"\x04\x06\0flags\0\x07",
        b"\x05\x02\0x\0",
        b"\x02\0\0\0\0",
        b"\x0b\xff\xff",
        b"\x06\xff\xff\xff\xff",
        b"\x08",
        b"\x0c",
    ]);
    let element = prop_oneof![elements.prop_map(<[u8]>::to_vec), vec(any::<u8>(), 0..8)];
    let blobs =
        prop_oneof![vec(any::<u8>(), 0..200), vec(element, 0..40).prop_map(|elements| elements.concat()),];
    runner(3_000)
        .run(&blobs, |blob| check(&blob, &BTreeSet::new()).map(drop))
        .unwrap_or_else(|error| panic!("{error}"));
}
