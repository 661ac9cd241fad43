//! The elements that a blob is made of, each read where it is expected.
//!
//! Invariant: nothing is read past the end, and nothing is passed over that was not asked for.

use super::Malformed;

/// What stands before each element (`aa_code` in `security/apparmor/include/policy_unpack.h`).
#[derive(Clone, Copy)]
enum Kind {
    U8 = 0,
    U16 = 1,
    U32 = 2,
    U64 = 3,
    Name = 4,
    String = 5,
    Blob = 6,
    Struct = 7,
    StructEnd = 8,
    Array = 11,
    ArrayEnd = 12,
}

/// A blob, and how much of it was read. All numbers are little-endian.
pub(super) struct Cursor<'a> {
    blob: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(blob: &'a [u8]) -> Self {
        Self { blob, rest: blob }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes were read.
    fn offset(&self) -> usize {
        self.blob.len() - self.rest.len()
    }

    /// The error that `expected` is not next.
    pub(super) fn malformed(&self, expected: &'static str) -> Malformed {
        Malformed { offset: self.offset(), expected }
    }

    /// Whether an element named `name` is next, of which the name is read.
    pub(super) fn is_named(&mut self, name: &str) -> bool {
        let mut rest = self.rest;
        let is_name = take(&mut rest, 1) == Some(&[Kind::Name as u8]);
        let found = short(&mut rest).and_then(|text| text.strip_suffix(b"\0"));
        let is_named = is_name && found == Some(name.as_bytes());
        if is_named {
            self.rest = rest;
        }
        is_named
    }

    /// Reads one element of `kind` with no name, whose value `value` takes off what follows.
    fn element<T>(
        &mut self,
        kind: Kind,
        expected: &'static str,
        value: impl FnOnce(&mut &'a [u8]) -> Option<T>,
    ) -> Result<T, Malformed> {
        let mut rest = self.rest;
        if take(&mut rest, 1) != Some(&[kind as u8]) {
            return Err(self.malformed(expected));
        }
        let value = value(&mut rest).ok_or_else(|| self.malformed(expected))?;
        self.rest = rest;
        Ok(value)
    }

    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8, Malformed> {
        self.element(Kind::U8, expected, |rest| array(rest).map(u8::from_le_bytes))
    }

    pub(super) fn u16(&mut self, expected: &'static str) -> Result<u16, Malformed> {
        self.element(Kind::U16, expected, |rest| array(rest).map(u16::from_le_bytes))
    }

    pub(super) fn u32(&mut self, expected: &'static str) -> Result<u32, Malformed> {
        self.element(Kind::U32, expected, |rest| array(rest).map(u32::from_le_bytes))
    }

    pub(super) fn u64(&mut self, expected: &'static str) -> Result<u64, Malformed> {
        self.element(Kind::U64, expected, |rest| array(rest).map(u64::from_le_bytes))
    }

    /// Some numbers, one after another.
    pub(super) fn u32s(&mut self, count: usize, expected: &'static str) -> Result<(), Malformed> {
        (0..count).try_for_each(|_| self.u32(expected).map(drop))
    }

    /// The number named `name`, if it is next.
    pub(super) fn named_u32(&mut self, name: &str, expected: &'static str) -> Result<Option<u32>, Malformed> {
        if self.is_named(name) { self.u32(expected).map(Some) } else { Ok(None) }
    }

    /// A text with something in it and the NUL that ends it, which is not returned. It may hold others.
    pub(super) fn text(&mut self, expected: &'static str) -> Result<&'a [u8], Malformed> {
        self.element(Kind::String, expected, |rest| short(rest)?.strip_suffix(b"\0"))
    }

    /// A text that is not empty and holds no NUL: the kernel sees the whole of it.
    pub(super) fn word(&mut self, expected: &'static str) -> Result<&'a [u8], Malformed> {
        let is_word = |text: &&[u8]| !text.is_empty() && !text.contains(&0);
        self.element(Kind::String, expected, |rest| short(rest)?.strip_suffix(b"\0").filter(is_word))
    }

    /// The text named `name`, if it is next.
    pub(super) fn named_word(
        &mut self,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<&'a [u8]>, Malformed> {
        if self.is_named(name) { self.word(expected).map(Some) } else { Ok(None) }
    }

    /// Bytes of any kind.
    pub(super) fn bytes(&mut self, expected: &'static str) -> Result<&'a [u8], Malformed> {
        self.element(Kind::Blob, expected, |rest| {
            let length = array(rest).map(u32::from_le_bytes)?;
            take(rest, usize::try_from(length).ok()?)
        })
    }

    /// Whether the struct named `name` is next, of which the start is read.
    pub(super) fn is_struct(&mut self, name: &str, expected: &'static str) -> Result<bool, Malformed> {
        let is_named = self.is_named(name);
        if is_named {
            self.element(Kind::Struct, expected, |_| Some(()))?;
        }
        Ok(is_named)
    }

    pub(super) fn end_struct(&mut self, expected: &'static str) -> Result<(), Malformed> {
        self.element(Kind::StructEnd, expected, |_| Some(()))
    }

    /// An array whose every entry is what `entry` reads.
    pub(super) fn each(
        &mut self,
        expected: &'static str,
        mut entry: impl FnMut(&mut Self) -> Result<(), Malformed>,
    ) -> Result<usize, Malformed> {
        let count = self.element(Kind::Array, expected, |rest| array(rest).map(u16::from_le_bytes))?;
        for _ in 0..count {
            entry(self)?;
        }
        self.element(Kind::ArrayEnd, expected, |_| Some(()))?;
        Ok(count.into())
    }
}

/// Takes `count` bytes off.
fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// Takes the bytes of a number off.
fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    take(rest, N)?.try_into().ok()
}

/// Takes bytes off that have their length before them, as 16 bits.
fn short<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = array(rest).map(u16::from_le_bytes)?;
    take(rest, length.into())
}
