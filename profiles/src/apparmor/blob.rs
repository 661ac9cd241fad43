//! What the kernel would make of a compiled text.
//!
//! Invariant: what is read is what every kernel from Linux 5.4 on reads that takes the blob: each byte belongs
//! to an element that was expected where it is, and no kernel looks for another there. A blob that has
//! anything else is [`Malformed`], as one of a newer compiler can be. So no profile of a blob goes unseen.
//!
//! Written after `aa_unpack` in `security/apparmor/policy_unpack.c`, and after `sd_serialize_profile` in
//! `parser/parser_interface.c` of AppArmor, whose parser writes blobs. The kernel also takes names where it
//! expects none, and passes over them. The parser writes none there, and none are taken here.

mod cursor;
mod table;
#[cfg(test)]
mod tests;

use thiserror::Error;

use self::cursor::Cursor;
use self::table::Table;
use super::policy::Mode;

/// One profile, child or hat of a blob. The kernel takes no name of it to be UTF-8.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unpacked<'a> {
    /// Its name: whole, so that of a child has its parent's before it. Never empty, and has no NUL.
    pub name: &'a [u8],
    /// The namespace in which it would be loaded, as the header before it says. There may be one in the name.
    pub namespace: Option<&'a [u8]>,
    /// The name of the profile that it would take the place of.
    pub rename: Option<&'a [u8]>,
    /// Whether it has rules for the programs to which it attaches itself, unasked. The kernel also compares
    /// its name to their paths.
    pub attaches: bool,
    /// How it would be enforced.
    pub mode: Mode,
    /// Whether it is a hat: a child that programs of its parent ask for by themselves.
    pub is_hat: bool,
}

/// A blob that is not what a compiler writes, or not what one wrote that this reader knows.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("byte {offset} should begin {expected}")]
pub struct Malformed {
    /// How many bytes could be read.
    pub offset: usize,
    /// What should stand there.
    pub expected: &'static str,
}

/// The versions of the format that kernels take (`verify_header`).
const VERSIONS: std::ops::RangeInclusive<u32> = 5..=9;
/// What of the version is its number (`K_ABI_MASK`).
const VERSION_MASK: u32 = 0x3ff;
/// In the version: what follows only complains, whatever its mode (`FORCE_COMPLAIN_FLAG`).
const FORCE_COMPLAIN: u32 = 1 << 11;
/// In the flags of a profile: it is a hat (`PACKED_FLAG_HAT`).
const HAT: u32 = 1;
/// All flags that a parser writes: hat, two for debugging, interruptible, and one for prompts
/// (`profile_flag_t` in parser/profile.h).
const FLAGS: u32 = 0x1f;
/// How many limits of resources there are (`RLIM_NLIMITS`).
const RLIMITS: usize = 16;

/// The profiles of `blob`, in its order: one at least.
///
/// # Errors
/// [`Malformed`], if it can't be read to its end.
pub fn read(blob: &[u8]) -> Result<Vec<Unpacked<'_>>, Malformed> {
    let mut cursor = Cursor::new(blob);
    let mut profiles = vec![profile(&mut cursor)?];
    while !cursor.is_at_end() {
        profiles.push(profile(&mut cursor)?);
    }
    Ok(profiles)
}

/// `verify_header` and `unpack_profile`. What is optional there is optional here, but for the header: the
/// kernel wants one before the first profile only, and the parser writes one before each.
fn profile<'a>(cursor: &mut Cursor<'a>) -> Result<Unpacked<'a>, Malformed> {
    let start = cursor.malformed("a header with a version from 5 to 9");
    let version = cursor.named_u32("version", start.expected)?.ok_or(start)?;
    if !VERSIONS.contains(&(version & VERSION_MASK)) {
        return Err(start);
    }
    let namespace = cursor.named_word("namespace", "the name of a namespace")?;
    if !cursor.is_struct("profile", "a profile")? {
        return Err(cursor.malformed("a profile"));
    }
    let name = cursor.word("the name of a profile")?;
    let rename = cursor.named_word("rename", "the name of a renamed profile")?;
    let mut attaches = cursor.named_word("attach", "the text of an attachment")?.is_some();
    if rules(cursor)? {
        attaches = true;
        cursor.u32("the length of an attachment")?;
    }
    cursor.named_word("disconnected", "a path for what is disconnected")?;
    cursor.named_word("disconnected_ipc", "a path for sockets that are disconnected")?;
    cursor.named_u32("kill", "a signal to kill with")?;
    let (flags, mode) = flags(cursor)?;
    cursor.named_u32("path_flags", "flags for paths")?;
    cursor.u32s(4, "capabilities")?;
    if cursor.is_struct("caps64", "more capabilities")? {
        cursor.u32s(4, "more capabilities")?;
        cursor.end_struct("the end of more capabilities")?;
    }
    if cursor.is_struct("capsx", "extended capabilities")? {
        cursor.u32s(2, "extended capabilities")?;
        cursor.end_struct("the end of extended capabilities")?;
    }
    if cursor.is_struct("xattrs", "extended attributes")? {
        attaches = true;
        cursor.each("extended attributes", |cursor| cursor.word("an extended attribute").map(drop))?;
        cursor.end_struct("the end of extended attributes")?;
    }
    limits_and_networks(cursor)?;
    if cursor.is_struct("policydb", "rules")? {
        if !rules(cursor)? {
            return Err(cursor.malformed("a table of rules"));
        }
        cursor.end_struct("the end of rules")?;
    }
    rules(cursor)?;
    if cursor.is_struct("data", "data")? {
        while cursor.end_struct("").is_err() {
            cursor.word("a key of data, or their end")?;
            cursor.bytes("a value of data")?;
        }
    }
    cursor.end_struct("the end of a profile, or a part of one that is known")?;
    let is_forced = version & FORCE_COMPLAIN != 0;
    let mode = if is_forced { Mode::Complain } else { mode };
    Ok(Unpacked { name, namespace, rename, attaches, mode, is_hat: flags & HAT != 0 })
}

/// The flags and the mode, as they are packed.
fn flags(cursor: &mut Cursor<'_>) -> Result<(u32, Mode), Malformed> {
    if !cursor.is_struct("flags", "flags")? {
        return Err(cursor.malformed("flags, or a part of a profile before them that is known"));
    }
    let start = cursor.malformed("flags that are known");
    let flags = cursor.u32(start.expected)?;
    if flags & !FLAGS != 0 {
        return Err(start);
    }
    let start = cursor.malformed("a mode that is known");
    let mode = match cursor.u32(start.expected)? {
        0 => Mode::Enforce,
        1 => Mode::Complain,
        2 => Mode::Kill,
        3 => Mode::Unconfined,
        4 => Mode::User,
        _ => return Err(start),
    };
    cursor.u32("whether all is logged")?;
    cursor.end_struct("the end of flags")?;
    Ok((flags, mode))
}

/// `unpack_rlimits`, `unpack_secmark`, and what profiles of kernels before 5 said of networks.
fn limits_and_networks(cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    if cursor.is_struct("rlimits", "limits of resources")? {
        cursor.u32("which resources have limits")?;
        let start = cursor.malformed("16 limits of resources at most");
        let count = cursor.each("limits of resources", |cursor| cursor.u64("a limit").map(drop))?;
        if count > RLIMITS {
            return Err(start);
        }
        cursor.end_struct("the end of limits of resources")?;
    }
    if cursor.is_struct("secmark", "marks of packets")? {
        cursor.each("marks of packets", |cursor| {
            cursor.u8("whether a packet is logged")?;
            cursor.u8("whether a packet is denied")?;
            cursor.word("the mark of a packet").map(drop)
        })?;
        cursor.end_struct("the end of marks of packets")?;
    }
    if cursor.is_named("net_allowed_af") {
        let start = cursor.malformed("families of sockets");
        let family =
            |cursor: &mut Cursor<'_>| (0..3).try_for_each(|_| cursor.u16("a family of sockets").map(drop));
        if cursor.each("families of sockets", family)? == 0 {
            return Err(start);
        }
    }
    Ok(())
}

/// `unpack_pdb`: a table by which texts are matched, and what belongs to it. Whether there is one.
fn rules(cursor: &mut Cursor<'_>) -> Result<bool, Malformed> {
    let permissions = permissions(cursor)?;
    let has_table = cursor.is_named("aadfa");
    if has_table {
        let start = cursor.malformed("a table of states that is sound");
        let table = Table::read(cursor.bytes(start.expected)?).ok_or(start)?;
        if permissions.is_some_and(|count| !table.refers_to(count)) {
            return Err(start);
        }
        for name in ["start", "dfa_start"] {
            let start = cursor.malformed("a state to start with");
            if cursor.named_u32(name, start.expected)?.is_some_and(|state| !table.has_state(state)) {
                return Err(start);
            }
        }
    } else if permissions.is_some() {
        return Err(cursor.malformed("the table of states to which permissions belong"));
    }
    if cursor.is_struct("xtable", "names of targets")? {
        // A name with a namespace has a NUL between the two.
        cursor.each("names of targets", |cursor| cursor.text("the name of a target").map(drop))?;
        cursor.end_struct("the end of names of targets")?;
    }
    Ok(has_table)
}

/// `unpack_perms_table`: how many permissions there are, if they stand apart from the table of states.
fn permissions(cursor: &mut Cursor<'_>) -> Result<Option<usize>, Malformed> {
    if !cursor.is_struct("perms", "permissions")? {
        return Ok(None);
    }
    let start = cursor.malformed("permissions of version 1");
    if cursor.named_u32("version", start.expected)? != Some(1) {
        return Err(start);
    }
    let count = cursor.each("permissions", |cursor| cursor.u32s(14, "permissions"))?;
    cursor.end_struct("the end of permissions")?;
    cursor.named_u32("permsv", "a version of permissions")?;
    Ok(Some(count))
}
