//! Digests of contents.
//!
//! Invariant: two contents with the same [`Digest`] are taken for equal byte for byte, everywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// The SHA-256 of a content. Written `sha256:<64 hex digits>`, also in JSON.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text that is not a digest.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} can't be a digest: expected `sha256:` and 64 hex digits")]
pub struct InvalidDigest(String);

impl Digest {
    /// Digests `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The first eight bytes as 16 hex digits: enough to keep names apart, too short to prove anything.
    pub(crate) fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    nibbles.filter_map(|nibble| char::from_digit(nibble.into(), 16)).collect()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex(&self.0))
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let parse = || {
            let digits = text.strip_prefix("sha256:")?.as_bytes();
            let bytes: Option<Vec<u8>> =
                digits.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(*pair.get(1)?)?)).collect();
            bytes?.try_into().ok().map(Self)
        };
        parse().ok_or_else(|| InvalidDigest(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidDigest;

    fn try_from(text: String) -> Result<Self, InvalidDigest> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_digest_survives_being_written_and_read() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse(), Ok(digest));
        assert_eq!(digest.short(), "e3b0c44298fc1c14");
    }

    #[test]
    fn a_text_of_another_shape_is_no_digest() {
        let (short, long) = (&EMPTY[..EMPTY.len() - 1], format!("{EMPTY}00"));
        for text in ["", "sha256:", "sha1:00", &EMPTY[7..], short, &long, &EMPTY.replace('e', "x")] {
            assert!(text.parse::<Digest>().is_err(), "{text:?} should be refused");
        }
    }
}
