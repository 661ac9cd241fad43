//! What may have been meant by a word, or by a reference, that nobody knows.
//!
//! Words are compared by a likeness in relation to their length. Paths of one bundle have most letters in common,
//! and would all be alike then: of references, it is counted how many letters are wrong.

/// The one of `words` that `word` was probably meant to be.
pub(crate) fn word<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    /// Below this, words have too little in common (Jaro-Winkler, 0 to 1).
    const ALIKE: f64 = 0.85;
    /// No word is as long, and comparing costs time with the length.
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let alike =
        |candidate: &'w str| (strsim::jaro_winkler(&word, &candidate.to_ascii_lowercase()), candidate);
    let best = words.into_iter().map(alike).max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE).map(|(_, candidate)| candidate)
}

/// How many references are suggested.
const MOST: usize = 3;
/// So many letters of one are wrong at most.
const WRONG: usize = 3;
/// What one reference has of another, as its part or as its last one, has so many bytes at least.
const PART: usize = 5;
/// Longer references are not compared.
const LONGEST: usize = 253;

/// Those of `names` that `reference` may have been meant to be, the likeliest first.
pub(crate) fn references<'n>(reference: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    if reference.len() > LONGEST {
        return Vec::new();
    }
    let word = reference.to_ascii_lowercase();
    let distance = |name: &'n str| Some((wrong(&word, &name.to_ascii_lowercase())?, name));
    let mut all: Vec<(usize, &str)> = names.into_iter().filter_map(distance).collect();
    all.sort_unstable();
    all.into_iter().take(MOST).map(|(_, name)| name).collect()
}

/// How far `name` is from `word`; none if it is something else.
fn wrong(word: &str, name: &str) -> Option<usize> {
    // A third of a short word makes another word of it.
    let most = WRONG.min(word.len() / 3);
    let letters = letters(word.as_bytes(), name.as_bytes(), most);
    let last = |path: &str| path.rsplit('/').next().map(|last| last.trim_end_matches(".json").to_owned());
    let is_end = |part: &str, whole: &str| whole.strip_suffix(part).is_some_and(|rest| rest.ends_with('/'));
    let is_part =
        |part: &str, whole: &str| is_end(part, whole) || (part.len() >= PART && whole.contains(part));
    let is_part = || is_part(word, name) || is_part(name, word);
    let is_last = || last(word).is_some_and(|part| part.len() >= PART) && last(word) == last(name);
    let alike = || is_part().then_some(WRONG + 1).or_else(|| is_last().then_some(WRONG + 2));
    letters.or_else(alike)
}

/// How many letters are to be changed, left out, added, or swapped with their neighbours to make `name` of `word`;
/// none if more than `most`. Who writes pods and bundles decides how many names are compared, and how long they
/// are: so only what can lead to so few is looked at, and no further than up to the first that are too many.
fn letters(word: &[u8], name: &[u8], most: usize) -> Option<usize> {
    if word.len().abs_diff(name.len()) > most {
        return None;
    }
    let far = most + 1;
    // Row `i` tells how far the first `i` letters of `word` are from each beginning of `name` that is about as long.
    let mut before_last = vec![far; name.len() + 1];
    let mut last: Vec<usize> = (0..=name.len()).map(|letters| letters.min(far)).collect();
    let mut row = before_last.clone();
    let mut was_far = false;
    for (i, letter) in (1_usize..).zip(word) {
        let (first, end) = (i.saturating_sub(most).max(1), name.len().min(i + most));
        row[first - 1] = if first == 1 { i.min(far) } else { far };
        for j in first..=end {
            let changed = last[j - 1] + usize::from(name[j - 1] != *letter);
            let mut letters = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && name[j - 1] == word[i - 2] && name[j - 2] == *letter {
                letters = letters.min(before_last[j - 2] + 1);
            }
            row[j] = letters.min(far);
        }
        if let Some(beyond) = row.get_mut(end + 1) {
            *beyond = far;
        }
        let is_far = row[first - 1..=end].iter().all(|letters| *letters == far);
        if is_far && was_far {
            return None;
        }
        was_far = is_far;
        std::mem::swap(&mut before_last, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    last.pop().filter(|letters| *letters <= most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn few_letters_are_counted_as_by_who_counts_all(word in "[ab]{0,9}", name in "[ab]{0,9}", most in 0_usize..5) {
            let expected = Some(strsim::osa_distance(&word, &name)).filter(|letters| *letters <= most);
            prop_assert_eq!(letters(word.as_bytes(), name.as_bytes(), most), expected);
        }
    }

    #[test]
    fn a_typo_is_understood_and_nonsense_is_not() {
        let names = [
            "profiles/audit.json",
            "profiles/fine-grained.json",
            "profiles/violation.json",
            "_team/web/audit.json",
            "deny-write",
            "web/a",
        ];
        for (reference, expected) in [
            ("profiles/adit.json", &["profiles/audit.json"][..]),
            ("Profiles/Audit.json", &["profiles/audit.json", "_team/web/audit.json"]),
            ("profiles/audit", &["profiles/audit.json", "_team/web/audit.json"]),
            ("audit.json", &["_team/web/audit.json", "profiles/audit.json"]),
            ("profiles/vialotion.json", &["profiles/violation.json"]),
            ("k8s-deny-write", &["deny-write"]),
            ("deny-wrtie", &["deny-write"]),
            ("web/b", &["web/a"]),
            // Most of its letters are in the right place.
            ("profiles/nginx.json", &[]),
            ("banana", &[]),
            ("x", &[]),
        ] {
            assert_eq!(references(reference, names), expected, "{reference}");
        }
    }
}
