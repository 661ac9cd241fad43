//! The tables of states by which the kernel matches texts: a deterministic finite automaton.
//!
//! Invariant: in a [`Table`] that was read, no state leads out of it and no chain of states is endless. The
//! kernel checks that too, but for long did so incompletely: the tables come from a compiler that is not
//! trusted, and a wrong one would be read out of bounds in the kernel (CVE-2026-23269, CVE-2026-23407).
//!
//! Written after `aa_dfa_unpack` and `verify_dfa` in security/apparmor/match.c. What the states stand for is
//! not looked at.

/// What a table starts with (`YYTH_MAGIC`).
const MAGIC: u32 = 0x1b5e_783d;
/// The length of the header, but for the text with which it ends.
const HEADER: usize = 14;
/// In the header: some states say only where they differ from another.
const HAS_DIFFERENCES: u16 = 1;
/// In the header: some states can be left by something that is no byte.
const HAS_OUT_OF_BAND: u16 = 2;
/// In a base: the state says only where it differs from its default (`MATCH_FLAG_DIFF_ENCODE`).
const IS_DIFFERENCE: u32 = 0x8000_0000;
/// In a base: the state can be left by something that is no byte (`MATCH_FLAG_OOB_TRANSITION`).
const IS_OUT_OF_BAND: u32 = 0x2000_0000;
/// In a base: where the transitions of the state are.
const INDEX: u32 = 0x00ff_ffff;

/// A table that can be matched with.
pub(super) struct Table<'a> {
    accept: Column<'a>,
}

impl<'a> Table<'a> {
    /// Reads `bytes`. [`None`] if they are no table.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        // Before the table is what moves it to a multiple of 8 bytes. It ends at one too. (`unpack_dfa`)
        let mut rest = bytes.get(bytes.len() % 8..)?;
        let header = rest.get(..HEADER)?;
        let flags = u16::from_be_bytes(header.get(12..14)?.try_into().ok()?);
        let length = usize::try_from(word(header, 4)?).ok()?;
        if word(header, 0)? != MAGIC || flags & !(HAS_DIFFERENCES | HAS_OUT_OF_BAND) != 0 || length < HEADER {
            return None;
        }
        rest = rest.get(length..)?;
        let mut columns = Columns::default();
        while !rest.is_empty() {
            rest = columns.take(rest)?;
        }
        columns.is_sound(flags).then_some(Self { accept: columns.accept? })
    }

    /// Whether `state` is one of its states.
    pub(super) fn has_state(&self, state: u32) -> bool {
        is_below(state, self.accept.len())
    }

    /// Whether what it says of each state is the index of one of `count` permissions.
    pub(super) fn refers_to(&self, count: usize) -> bool {
        self.accept.iter().all(|index| is_below(index, count))
    }
}

/// What a table consists of: of each state (`accept`, `base`, `default`), of each transition (`check`,
/// `next`), of each byte (`class`).
#[derive(Default)]
struct Columns<'a> {
    accept: Option<Column<'a>>,
    accept2: Option<Column<'a>>,
    base: Option<Column<'a>>,
    default: Option<Column<'a>>,
    check: Option<Column<'a>>,
    next: Option<Column<'a>>,
    class: Option<Column<'a>>,
}

impl<'a> Columns<'a> {
    /// Takes the column off with which `bytes` start. What comes after it.
    fn take(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        const HEADER: usize = 12;
        let [_, id, _, width] = *bytes.first_chunk()?;
        let is_short = bytes.starts_with(&[0, id, 0, width]);
        let (place, widths): (_, &[u8]) = match id {
            1 => (&mut self.accept, &[4]),
            2 => (&mut self.base, &[4]),
            3 => (&mut self.check, &[2, 4]),
            4 => (&mut self.default, &[2, 4]),
            5 => (&mut self.class, &[1]),
            7 => (&mut self.accept2, &[4]),
            8 => (&mut self.next, &[2, 4]),
            _ => return None,
        };
        if !is_short || !widths.contains(&width) || place.is_some() {
            return None;
        }
        let width = usize::from(width);
        let length = usize::try_from(word(bytes, 8)?).ok()?.checked_mul(width)?;
        let end = HEADER.checked_add(length)?;
        *place =
            Some(Column { width, numbers: bytes.get(HEADER..end).filter(|numbers| !numbers.is_empty())? });
        bytes.get(end.checked_next_multiple_of(8)?..)
    }

    /// Whether nothing in it leads out of it, and no chain of differences is endless.
    fn is_sound(&self, flags: u16) -> bool {
        let (Some(accept), Some(base), Some(default)) = (self.accept, self.base, self.default) else {
            return false;
        };
        let (Some(check), Some(next)) = (self.check, self.next) else { return false };
        let (states, transitions) = (base.len(), next.len());
        // State 0 is none, and 1 is where matching starts unless it is said otherwise.
        let is_whole = states >= 2
            && [accept, default, self.accept2.unwrap_or(accept)].iter().all(|column| column.len() == states)
            && check.len() == transitions
            && self.class.is_none_or(|class| class.len() == 256);
        let is_base = |base: u32| {
            let (is_difference, is_out_of_band) = (base & IS_DIFFERENCE != 0, base & IS_OUT_OF_BAND != 0);
            base & !(IS_DIFFERENCE | IS_OUT_OF_BAND | INDEX) == 0
                && (!is_difference || flags & HAS_DIFFERENCES != 0)
                // The transition stands before the others.
                && (!is_out_of_band || flags & HAS_OUT_OF_BAND != 0 && base & INDEX != 0)
                && is_below((base & INDEX) + 255, transitions)
        };
        is_whole
            && base.iter().all(is_base)
            && [default, check, next].iter().all(|column| column.iter().all(|state| is_below(state, states)))
            && has_ends(base, default)
    }
}

/// Whether each chain of states that say where they differ from another ends.
fn has_ends(base: Column<'_>, default: Column<'_>) -> bool {
    let mut ends: Vec<bool> = base.iter().map(|base| base & IS_DIFFERENCE == 0).collect();
    let default: Vec<usize> = default.iter().filter_map(|state| usize::try_from(state).ok()).collect();
    let mut chain = Vec::new();
    for start in 0..ends.len() {
        let mut state = start;
        while ends.get(state) == Some(&false) {
            // A chain without an end is one that is longer than there are states.
            let Some(next) = default.get(state).filter(|_| chain.len() < ends.len()) else { return false };
            chain.push(state);
            state = *next;
        }
        for state in chain.drain(..) {
            ends[state] = true;
        }
    }
    true
}

/// Numbers of the same width: 1, 2 or 4 bytes, big-endian.
#[derive(Clone, Copy)]
struct Column<'a> {
    width: usize,
    numbers: &'a [u8],
}

impl<'a> Column<'a> {
    fn len(&self) -> usize {
        self.numbers.len() / self.width
    }

    fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
        self.numbers.chunks_exact(self.width).map(number)
    }
}

/// The number that stands at byte `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn is_below(index: u32, count: usize) -> bool {
    usize::try_from(index).is_ok_and(|index| index < count)
}
