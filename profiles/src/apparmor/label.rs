//! What the kernel says that a process runs under (`attr/apparmor/current`).
//!
//! Invariant: a [`Label`] has a profile exactly if the rules of that profile, or of a child of it, bind the
//! process.

/// What is between a profile and its child.
const CHILD: &str = "//";
/// What is between two profiles that a process runs under at once.
const STACKED: &str = "//&";
/// The label of what no profile confines.
const UNCONFINED: &str = "unconfined";

/// A label, as the kernel writes it (`aa_label_snxprint` in security/apparmor/label.c): `name (mode)`,
/// `a//child (mode)`, `a//&b (mixed)`, `unconfined`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Label<'a> {
    profiles: &'a str,
    mode: Option<&'a str>,
}

impl<'a> Label<'a> {
    /// Reads what the kernel writes, with or without what ends it.
    #[must_use]
    pub fn of(text: &'a str) -> Self {
        let text = text.trim_end_matches(['\n', '\0']);
        match text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) {
            Some((profiles, mode)) => Self { profiles, mode: Some(mode) },
            None => Self { profiles: text, mode: None },
        }
    }

    /// It without its mode.
    #[must_use]
    pub fn profiles(self) -> &'a str {
        self.profiles
    }

    /// The kernel's word for how it is enforced: that of a [`crate::apparmor::policy::Mode`], or `mixed` for
    /// profiles of several modes.
    #[must_use]
    pub fn mode(self) -> Option<&'a str> {
        self.mode
    }

    /// Whether no profile confines the process.
    #[must_use]
    pub fn is_unconfined(self) -> bool {
        self.profiles == UNCONFINED
    }

    /// Whether it has `profile` or a child of it. What is in another namespace (`:namespace:name`) is another
    /// profile.
    #[must_use]
    pub fn has(self, profile: &str) -> bool {
        let is_it = |part: &str| {
            part.strip_prefix(profile).is_some_and(|rest| rest.is_empty() || rest.starts_with(CHILD))
        };
        self.profiles.split(STACKED).any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_its_profiles_and_their_parents() {
        for (label, expected) in [
            ("a (enforce)\n", true),
            ("a", true),
            ("a (complain)", true),
            ("a//hat (enforce)\n", true),
            ("a//b//c (enforce)\n", true),
            ("b//&a (mixed)\n", true),
            ("a//&b (enforce)\n", true),
            ("b//&a//hat (enforce)\n", true),
            ("a//&:ns:b (enforce)\n", true),
            ("unconfined\n", false),
            ("ab (enforce)\n", false),
            ("b//a (enforce)\n", false),
            (":ns:a (enforce)\n", false),
            (":ns://a (enforce)\n", false),
            ("a (x) (enforce)\n", false),
            ("", false),
        ] {
            assert_eq!(Label::of(label).has("a"), expected, "{label:?}");
        }
    }

    #[test]
    fn a_label_has_a_mode_unless_it_is_unconfined() {
        for (label, profiles, mode, is_unconfined) in [
            ("a (enforce)\n", "a", Some("enforce"), false),
            ("a//&b (mixed)\0", "a//&b", Some("mixed"), false),
            ("a (x) (kill)", "a (x)", Some("kill"), false),
            ("unconfined\n", "unconfined", None, true),
            ("unconfined (enforce)", "unconfined", Some("enforce"), true),
            ("unconfined-not", "unconfined-not", None, false),
            ("", "", None, false),
        ] {
            let label = Label::of(label);
            assert_eq!(
                (label.profiles(), label.mode(), label.is_unconfined()),
                (profiles, mode, is_unconfined)
            );
        }
    }
}
