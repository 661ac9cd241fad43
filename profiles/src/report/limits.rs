//! How much a report may hold.
//!
//! Invariant: whatever is in them, the lists have [`BYTES`] as JSON at most, and a report less than 192 KiB:
//! an object of the API server may have some 1.5 MiB (etcd's `--max-request-bytes`), and dashboards read
//! those of all nodes together.

use serde::Serialize;

use crate::statement;

/// So many bundles are listed at most.
pub(super) const MOST_BUNDLES: usize = 200;
/// So many entries every other list has at most.
pub(super) const MOST_DETAILS: usize = 100;
/// So many pods are named that retain one profile.
pub(super) const MOST_PODS: usize = 5;
/// The longest text, in bytes.
const LONGEST: usize = 512;
/// The longest list as JSON, in bytes.
const BYTES: usize = 40 * 1024;

/// The first `most` of `all`, if they are not too long for a list, and how many are left out.
pub(super) fn first<T: Serialize>(mut all: Vec<T>, most: usize) -> (Vec<T>, usize) {
    let mut left = BYTES;
    let fits = |entry: &T| {
        // With the comma.
        let bytes = serde_json::to_vec(entry).map_or(BYTES, |json| json.len()) + 1;
        let rest = left.checked_sub(bytes);
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let count = all.iter().take(most).map(fits).take_while(|fits| *fits).count();
    let omitted = all.len() - count;
    all.truncate(count);
    (all, omitted)
}

/// `text` on one line, and cut if it is too long.
pub(super) fn cut(text: &str) -> String {
    statement::cut(text, LONGEST).replace(|character: char| character.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for (text, expected) in [
            ("a\nb\u{7f}".to_owned(), "a b ".to_owned()),
            ("é".repeat(256), "é".repeat(256)),
            (format!("{}x", "é".repeat(256)), format!("{}…", "é".repeat(254))),
        ] {
            let line = cut(&text);
            assert_eq!(line, expected);
            assert!(line.len() <= LONGEST);
        }
    }

    #[test]
    fn a_list_is_short_and_holds_few_bytes() {
        for (count, bytes, expected) in
            [(3, 10, (3, 0)), (5, 10, (4, 1)), (3, 20 * 1024, (1, 2)), (1, BYTES, (0, 1))]
        {
            let (list, omitted) = first(vec!["x".repeat(bytes); count], 4);
            assert_eq!((list.len(), omitted), expected, "{count} of {bytes}");
        }
    }
}
