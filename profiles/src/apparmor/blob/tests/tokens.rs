//! A blob as elements in a row, read without knowing what belongs where.
//!
//! Invariant: this shares nothing with the reader but the numbers of the elements.

/// One element. Names, texts and bytes have their place in the blob.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: u8,
    /// Where it begins.
    pub(super) start: usize,
    /// What comes after its kind and length.
    pub(super) value: &'a [u8],
}

/// The elements of `blob`, as far as they are any.
pub(super) fn tokens(blob: &[u8]) -> (Vec<Token<'_>>, bool) {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < blob.len() {
        let number = |width: usize| {
            let bytes = blob.get(at + 1..at + 1 + width)?;
            Some((1 + width, bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))))
        };
        let extent = match blob[at] {
            kind @ 0..=3 => Some((1, 1 << kind)),
            4 | 5 => number(2),
            6 => number(4),
            7 | 8 | 12 => Some((1, 0)),
            11 => Some((1, 2)),
            _ => None,
        };
        let value = extent.and_then(|(before, length)| {
            Some((blob.get(at + before..at + before + length)?, at + before + length))
        });
        let Some((value, end)) = value else { return (tokens, false) };
        tokens.push(Token { kind: blob[at], start: at, value });
        at = end;
    }
    (tokens, true)
}

/// What the kernel could take for the start of a profile: the text after each struct named `profile`.
pub(super) fn profiles<'a>(tokens: &[Token<'a>]) -> Vec<&'a [u8]> {
    let starts = tokens.windows(3).filter(|three| is(&three[0], "profile") && three[1].kind == 7);
    starts.map(|three| three[2].value.strip_suffix(b"\0").unwrap_or_default()).collect()
}

/// The namespaces that a header could have.
pub(super) fn namespaces<'a>(tokens: &[Token<'a>]) -> Vec<&'a [u8]> {
    let pairs = tokens.windows(2).filter(|pair| is(&pair[0], "namespace"));
    pairs.map(|pair| pair[1].value.strip_suffix(b"\0").unwrap_or_default()).collect()
}

/// Whether the kernel takes `token` for this name: it reads to the first NUL.
fn is(token: &Token<'_>, name: &str) -> bool {
    token.kind == 4 && token.value.split(|byte| *byte == 0).next() == Some(name.as_bytes())
}
