//! The names that come from Kubernetes.
//!
//! Invariant: a value of one of these types passed the same check that the API server makes, so it is safe as
//! one component of a path, as part of a label and in a field selector. Cloning one is cheap.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// A text that is not the name it was taken for.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} can't be {kind}: {reason}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    reason: &'static str,
}

type Check = Result<(), &'static str>;

/// Defines a name: its documentation, type, what an error calls it, and the check it has passed.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `text`.
            ///
            /// # Errors
            /// [`InvalidName`], which says what is wrong with `text`.
            pub fn new(text: &str) -> Result<Self, InvalidName> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.into())),
                    Err(reason) => Err(InvalidName { kind: $kind, text: text.to_owned(), reason }),
                }
            }

            /// The name as Kubernetes writes it.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A namespace: a DNS label of at most 63 characters.
    Namespace, "a namespace", check_dns_label
}
name! {
    /// A bundle's name, which is its ConfigMap's: a DNS subdomain of at most 253 characters.
    BundleName, "a bundle's name", check_dns_subdomain
}
name! {
    /// A Node's name: a DNS subdomain of at most 253 characters.
    NodeName, "a node's name", check_dns_subdomain
}
name! {
    /// A key of a bundle's data: at most 253 of `[-._a-zA-Z0-9]`, not `.`, and not starting with `..`.
    ProfileKey, "a profile's key", check_config_map_key
}

/// Whether `text` is one part of a DNS name, whatever its length.
pub(crate) fn is_dns_part(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    text.bytes().all(inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether `text` is a DNS subdomain, which the prefix of a label's key has to be.
pub(crate) fn is_dns_subdomain(text: &str) -> bool {
    check_dns_subdomain(text).is_ok()
}

fn check_dns_label(text: &str) -> Check {
    if text.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    if !is_dns_part(text) {
        return Err("it must be made of a-z, 0-9 and -, and start and end with a letter or digit");
    }
    Ok(())
}

fn check_dns_subdomain(text: &str) -> Check {
    if text.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    if !text.split('.').all(is_dns_part) {
        return Err("each part between dots must be made of a-z, 0-9 and -, \
                    and start and end with a letter or digit");
    }
    Ok(())
}

fn check_config_map_key(text: &str) -> Check {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > 253 {
        return Err("it is longer than 253 characters");
    }
    if !text.bytes().all(allowed) {
        return Err("it must be made of letters, digits, -, _ and .");
    }
    if text == "." || text.starts_with("..") {
        return Err("a path component must not be `.` nor start with `..`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(parse: fn(&str) -> Result<T, InvalidName>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(parse(text).is_ok(), "{text:?} should be accepted");
        }
        for text in bad {
            assert!(parse(text).is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn a_namespace_is_a_dns_label() {
        let (longest, too_long) = ("a".repeat(63), "a".repeat(64));
        check(
            Namespace::new,
            &["a", "0", "team-a", &longest],
            &["", "-a", "a-", "a.b", "A", "a_b", "ä", &too_long],
        );
    }

    #[test]
    fn a_bundle_name_is_a_dns_subdomain() {
        let (longest, too_long) = ("a".repeat(253), "a".repeat(254));
        check(
            BundleName::new,
            &["profiles", "a.b-c.d", &longest],
            &["", ".", "a..b", ".a", "a.", "_a", "a/b", "a.-b", &too_long],
        );
    }

    #[test]
    fn a_profile_key_is_one_harmless_path_component() {
        let (longest, too_long) = ("k".repeat(253), "k".repeat(254));
        check(
            ProfileKey::new,
            &["audit.json", "-", "_x", ".hidden", "a..b", "UPPER", &longest],
            &["", ".", "..", "..data", "a/b", "~pavise", "a\0b", "a b", &too_long],
        );
    }

    #[test]
    fn an_error_says_what_is_wrong_with_what() {
        assert_eq!(
            ProfileKey::new("a/b").unwrap_err().to_string(),
            r#""a/b" can't be a profile's key: it must be made of letters, digits, -, _ and ."#
        );
    }
}
