//! Label selectors, as `kubectl -l` takes them.
//!
//! The language is that of `labels.Parse` in `k8s.io/apimachinery` (pkg/labels/selector.go): requirements
//! with commas between them, all of which have to be met.
//!
//! | requirement | is met by labels |
//! |---|---|
//! | `key=value`, `key==value`, `key in (one,two)` | that have the key with this value, or one of these |
//! | `key!=value`, `key notin (one,two)` | that do not: the key may also be absent |
//! | `key`, `!key` | that have the key, or do not |
//! | `key>5`, `key<5` | that have the key with a whole number above or below this one |
//!
//! Invariant: a [`Selector`] asks only for keys and values that a label can have.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use crate::findings::cut;
use crate::name::is_dns_subdomain;

/// Longest value of a label, and longest name in its key, after the `/`.
const LONGEST: usize = 63;

/// Longest text of a selector, in bytes: it is compared with the Node's labels again and again.
const LONGEST_TEXT: usize = 16 << 10;

/// What labels have to be like. The default, like an empty text, selects all.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selector(Vec<Requirement>);

/// What one label has to be like.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Requirement {
    key: String,
    test: Test,
}

/// What the value of a label, or its absence, is compared with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Present,
    Absent,
    Above(i64),
    Below(i64),
}

/// A text that is no label selector, and why.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0}")]
pub struct InvalidSelector(String);

impl Selector {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`InvalidSelector`], which says what is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, InvalidSelector> {
        if text.len() > LONGEST_TEXT {
            return Err(InvalidSelector(format!(
                "it has {} bytes, and {LONGEST_TEXT} is the most",
                text.len()
            )));
        }
        let mut tokens = Tokens(text);
        let mut requirements = Vec::new();
        if tokens.peek().is_empty() {
            return Ok(Self(requirements));
        }
        loop {
            requirements.push(Requirement::parse(&mut tokens)?);
            match tokens.take() {
                "" => return Ok(Self(requirements)),
                "," => {}
                other => return Err(unexpected(other, "a comma or the end")),
            }
        }
    }

    /// Whether `labels` are as it asks for.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|Requirement { key, test }| test.is_passed_by(labels.get(key).map(String::as_str)))
    }

    /// Whether it matches any labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys of the labels that it looks at.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|requirement| requirement.key.as_str())
    }
}

impl fmt::Display for Selector {
    /// Writes it as [`Self::parse`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, test } = self;
        let list =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match test {
            Test::In(values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Test::In(values) => write!(f, "{key} in ({})", list(values)),
            Test::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Test::NotIn(values) => write!(f, "{key} notin ({})", list(values)),
            Test::Present => f.write_str(key),
            Test::Absent => write!(f, "!{key}"),
            Test::Above(bound) => write!(f, "{key}>{bound}"),
            Test::Below(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

impl Requirement {
    fn parse(tokens: &mut Tokens<'_>) -> Result<Self, InvalidSelector> {
        let first = tokens.take();
        let is_negated = first == "!";
        let key = if is_negated { tokens.take() } else { first };
        if !is_word(key) {
            return Err(unexpected(key, "a label's key"));
        }
        if !is_label_key(key) {
            return Err(InvalidSelector(format!("{:?} can't be the key of a label", cut(key, LONGEST))));
        }
        let test = if is_negated { Test::Absent } else { Test::parse(tokens)? };
        Ok(Self { key: key.to_owned(), test })
    }
}

impl Test {
    fn parse(tokens: &mut Tokens<'_>) -> Result<Self, InvalidSelector> {
        if matches!(tokens.peek(), "" | ",") {
            return Ok(Self::Present);
        }
        match tokens.take() {
            "=" | "==" => Ok(Self::In([value(tokens)?].into())),
            "!=" => Ok(Self::NotIn([value(tokens)?].into())),
            "in" => Ok(Self::In(values(tokens)?)),
            "notin" => Ok(Self::NotIn(values(tokens)?)),
            ">" => Ok(Self::Above(number(tokens)?)),
            "<" => Ok(Self::Below(number(tokens)?)),
            other => Err(unexpected(other, "=, ==, !=, in, notin, > or <")),
        }
    }

    /// Whether a label with this `value`, or its absence, passes.
    pub(crate) fn is_passed_by(&self, value: Option<&str>) -> bool {
        let is_number =
            |is_right: &dyn Fn(i64) -> bool| value.and_then(|value| value.parse().ok()).is_some_and(is_right);
        match self {
            Self::In(values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Self::Present => value.is_some(),
            Self::Absent => value.is_none(),
            Self::Above(bound) => is_number(&|number| number > *bound),
            Self::Below(bound) => is_number(&|number| number < *bound),
        }
    }
}

/// What is left of the text. A token is an operator, a parenthesis, a comma or a word; at the end it is
/// empty.
#[derive(Clone, Copy, Debug)]
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn take(&mut self) -> &'a str {
        let rest = self.0.trim_start_matches(WHITE);
        let length = match rest.as_bytes() {
            [b'=' | b'!', b'=', ..] => 2,
            [first, ..] if SPECIAL.contains(&char::from(*first)) => 1,
            _ => rest.find([SPECIAL, &WHITE].concat().as_slice()).unwrap_or(rest.len()),
        };
        let (token, rest) = rest.split_at(length);
        self.0 = rest;
        token
    }

    fn peek(mut self) -> &'a str {
        self.take()
    }
}

/// What separates tokens.
const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];
/// What no word has in it.
const SPECIAL: &[char] = &['=', '!', '(', ')', ',', '>', '<'];

fn is_word(token: &str) -> bool {
    token.chars().next().is_some_and(|first| !SPECIAL.contains(&first))
}

/// The values of a list in parentheses. Between commas there may be nothing: the empty value.
fn values(tokens: &mut Tokens<'_>) -> Result<BTreeSet<String>, InvalidSelector> {
    match tokens.take() {
        "(" => {}
        other => return Err(unexpected(other, "a list in parentheses")),
    }
    let mut values = BTreeSet::new();
    loop {
        values.insert(value(tokens)?);
        match tokens.take() {
            ")" => return Ok(values),
            "," => {}
            other => return Err(unexpected(other, "a comma or a closing parenthesis")),
        }
    }
}

fn value(tokens: &mut Tokens<'_>) -> Result<String, InvalidSelector> {
    if matches!(tokens.peek(), "" | "," | ")") {
        return Ok(String::new());
    }
    let value = tokens.take();
    if !is_word(value) {
        return Err(unexpected(value, "a value"));
    }
    if !is_label_name(value) {
        return Err(InvalidSelector(format!("{:?} can't be the value of a label", cut(value, LONGEST))));
    }
    Ok(value.to_owned())
}

fn number(tokens: &mut Tokens<'_>) -> Result<i64, InvalidSelector> {
    let value = value(tokens)?;
    value.parse().map_err(|_| InvalidSelector(format!("{value:?} is no whole number, as > and < need it")))
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_name(name),
        None => is_label_name(key),
    }
}

fn is_label_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let outer = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let text = text.as_bytes();
    text.len() <= LONGEST && outer(text.first()) && outer(text.last()) && text.iter().all(|c| inner(*c))
}

fn unexpected(found: &str, expected: &str) -> InvalidSelector {
    InvalidSelector(match found {
        "" => format!("it ends where there should be {expected}"),
        found => format!("{:?} stands where there should be {expected}", cut(found, LONGEST)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims which of these sets of labels, as `a=1 b=2`, `selector` matches, and which it does not.
    fn check(selector: &str, matching: &[&str], others: &[&str]) {
        let parsed = Selector::parse(selector).unwrap();
        for (sets, expected) in [(matching, true), (others, false)] {
            for set in sets {
                let pair = |word: &str| {
                    let (key, value) = word.split_once('=').unwrap();
                    (key.to_owned(), value.to_owned())
                };
                let labels = set.split_whitespace().map(pair).collect();
                assert_eq!(parsed.matches(&labels), expected, "{selector:?} on {set:?}");
            }
        }
    }

    fn check_refused(selector: &str, expected: &str) {
        assert_eq!(Selector::parse(selector).map_err(|error| error.to_string()), Err(expected.to_owned()));
    }

    #[test]
    fn a_value_is_asked_for() {
        check("x=a", &["x=a", "x=a y=b"], &["", "x=b", "y=a"]);
        check(" x == a\t,\r\ny=b ", &["x=a y=b"], &["x=a", "y=b", "x=b y=a"]);
        check("x=", &["x="], &["", "x=a"]);
        check("x=,y", &["x= y=1"], &["x=", "y=1"]);
        check("notin=in", &["notin=in"], &["in=notin"]);
        check("example.com/a-b_c.D=E", &["example.com/a-b_c.D=E"], &["example.com/a-b_c.D=e"]);
    }

    #[test]
    fn a_value_is_excluded_also_by_the_absence_of_the_key() {
        check("x!=a", &["", "x=b"], &["x=a"]);
        check("x!=", &["", "x=b"], &["x="]);
        check("x notin (a,b)", &["", "x=c"], &["x=a", "x=b"]);
        check("x!=a,x!=b", &["", "x=c"], &["x=a", "x=b"]);
    }

    #[test]
    fn one_of_several_values_is_asked_for() {
        check("x in (a,b)", &["x=a", "x=b"], &["", "x=c"]);
        check("x in(a , b),y", &["x=b y="], &["x=b"]);
        check("x in ()", &["x="], &["", "x=a"]);
        check("x in (,a)", &["x=", "x=a"], &["x=b"]);
        check("x in (a,,b,)", &["x=", "x=a", "x=b"], &["x=c"]);
        check("in in (in,notin)", &["in=in", "in=notin"], &["in=a"]);
    }

    #[test]
    fn a_key_is_asked_for_or_excluded() {
        check("x", &["x=", "x=a"], &["", "y=a"]);
        check("!x", &["", "y=a"], &["x=", "x=a"]);
        check("! x,y", &["y=a"], &["", "x=a y=a"]);
        check("in,!notin", &["in=a"], &["notin=a", "in=a notin=a"]);
    }

    #[test]
    fn numbers_are_compared() {
        check("x>1", &["x=2", "x=10"], &["", "x=1", "x=0", "x=a", "x=", "x=9223372036854775808"]);
        check("x<10", &["x=9", "x=09"], &["", "x=10", "x=a", "x=1.5"]);
        check("x > 1,x < 5", &["x=2"], &["x=1", "x=5"]);
        check("x<9223372036854775807", &["x=0"], &["x=9223372036854775807"]);
    }

    #[test]
    fn an_empty_selector_matches_all() {
        check("", &["", "x=a"], &[]);
        check(" \n", &["", "x=a"], &[]);
        assert!(Selector::parse(" ").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_reason() {
        check_refused(&"a,".repeat(9_000), "it has 18000 bytes, and 16384 is the most");
        for (selector, expected) in [
            ("x,", "it ends where there should be a label's key"),
            (",x", r#""," stands where there should be a label's key"#),
            ("!!x", r#""!" stands where there should be a label's key"#),
            ("!x=a", r#""=" stands where there should be a comma or the end"#),
            ("x=a||y=b", r#""a||y" can't be the value of a label"#),
            ("x=a y=b", r#""y" stands where there should be a comma or the end"#),
            ("x==a==b", r#""==" stands where there should be a comma or the end"#),
            ("x=(a)", r#""(" stands where there should be a value"#),
            ("x a", r#""a" stands where there should be =, ==, !=, in, notin, > or <"#),
            ("x in a", r#""a" stands where there should be a list in parentheses"#),
            ("x in (a", "it ends where there should be a comma or a closing parenthesis"),
            ("x in (a b)", r#""b" stands where there should be a comma or a closing parenthesis"#),
            ("x>a", r#""a" is no whole number, as > and < need it"#),
            ("x>", r#""" is no whole number, as > and < need it"#),
            ("x>-1", r#""-1" can't be the value of a label"#),
            ("x<9223372036854775808", r#""9223372036854775808" is no whole number, as > and < need it"#),
            ("x=ä", r#""ä" can't be the value of a label"#),
            ("x=-a", r#""-a" can't be the value of a label"#),
            ("Example.com/x", r#""Example.com/x" can't be the key of a label"#),
            ("a/b/c", r#""a/b/c" can't be the key of a label"#),
            ("/x", r#""/x" can't be the key of a label"#),
            ("x/", r#""x/" can't be the key of a label"#),
            ("x_", r#""x_" can't be the key of a label"#),
        ] {
            check_refused(selector, expected);
        }
    }

    #[test]
    fn keys_and_values_are_as_long_as_those_of_labels() {
        let (longest, too_long) = ("a".repeat(63), "a".repeat(64));
        let cut = format!("{longest}…");
        check(&format!("{longest}={longest}"), &[&format!("{longest}={longest}")], &[""]);
        check_refused(&too_long, &format!("{cut:?} can't be the key of a label"));
        check_refused(&format!("x={too_long}"), &format!("{cut:?} can't be the value of a label"));
        let prefix = format!("{}/x", "a".repeat(254));
        check_refused(&prefix, &format!("{cut:?} can't be the key of a label"));
    }
}
