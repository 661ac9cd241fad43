//! Reads a seccomp document the way containerd and runc do, and says what they would not.
//!
//! Both decode it with Go's `encoding/json` into the OCI runtime specification's `LinuxSeccomp`: keys match
//! case-insensitively, the last of several equal keys wins, and `null` leaves what was there.
//!
//! Invariant: a document without findings of severity error is a JSON object with a default action.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;

use crate::diagnostic::{Code, Diagnostic, Place};

/// How many characters of a message are kept.
const LONGEST_MESSAGE: usize = 200;

/// Every finding about `text`, in the order of the document. Empty: nothing to say.
#[must_use]
pub fn check(text: &str) -> Vec<Diagnostic> {
    match serde_json::from_str::<Outline>(text) {
        Err(error) => vec![unreadable(&error)],
        Ok(outline) if outline.default_action.is_empty() => vec![unconfined()],
        Ok(_) => Vec::new(),
    }
}

/// What of the document is looked at.
struct Outline {
    default_action: String,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutlineVisitor)
    }
}

/// Visits the keys in their order. A derived `Deserialize` would refuse a repeated key and distinguish case.
struct OutlineVisitor;

impl<'de> Visitor<'de> for OutlineVisitor {
    type Value = Outline;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut default_action = String::new();
        while let Some(key) = map.next_key::<String>()? {
            // Go also folds U+017F and U+212A to `s` and `k`, of which this key has neither.
            if !key.eq_ignore_ascii_case("defaultAction") {
                map.next_value::<IgnoredAny>()?;
            } else if let Some(action) = map.next_value::<Option<String>>()? {
                default_action = action;
            }
        }
        Ok(Outline { default_action })
    }
}

fn unreadable(error: &serde_json::Error) -> Diagnostic {
    let (code, help) = match error.classify() {
        Category::Data => (Code::WrongType, "see the OCI runtime specification's LinuxSeccomp for the types"),
        Category::Eof => {
            (Code::InvalidJson, "the document ends too early: copy all of it, and close what is open")
        }
        Category::Io | Category::Syntax => {
            (Code::InvalidJson, "comments, trailing commas and trailing data are not JSON")
        }
    };
    let place = Place { position: Some((error.line(), error.column())), path: "$".to_owned() };
    Diagnostic { code, place, message: message_of(error), help }
}

/// The error's text without the position, which `serde_json` repeats at its end, and not longer than a line of a log
/// should be: it quotes the value that it does not like, however long that is.
fn message_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    match message.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}

fn unconfined() -> Diagnostic {
    Diagnostic {
        code: Code::MissingDefaultAction,
        place: Place::at("$.defaultAction"),
        message: "there is no default action, so containerd and runc would run the container unconfined"
            .into(),
        help: r#"add one, such as "defaultAction": "SCMP_ACT_ERRNO""#,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_codes(text: &str, expected: &[Code]) {
        let found: Vec<Code> = check(text).iter().map(|diagnostic| diagnostic.code).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_document_with_a_default_action_is_accepted() {
        for text in [
            r#"{"defaultAction":"SCMP_ACT_LOG"}"#,
            r#"{"DEFAULTaction":"SCMP_ACT_LOG"}"#,
            r#" {"syscalls":[{"names":["x"]}],"defaultAction":"SCMP_ACT_ERRNO","unknown":{"a":[1,null]}} "#,
            r#"{"defaultAction":"","defaultaction":"SCMP_ACT_LOG"}"#,
            r#"{"defaultAction":"SCMP_ACT_LOG","defaultAction":null}"#,
            r#"{"\u0064efaultAction":"SCMP_ACT_LOG"}"#,
        ] {
            check_codes(text, &[]);
        }
    }

    #[test]
    fn a_document_that_would_leave_a_container_unconfined_is_refused() {
        for text in [
            "{}",
            r#"{"defaultAction":""}"#,
            r#"{"defaultAction":null}"#,
            r#"{"syscalls":[{"defaultAction":"SCMP_ACT_LOG"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_LOG","DefaultAction":""}"#,
        ] {
            check_codes(text, &[Code::MissingDefaultAction]);
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "{} {}", r#"{"defaultAction":"SCMP_ACT_LOG",}"#, "// a\n{}", "\u{feff}{}"] {
            check_codes(text, &[Code::InvalidJson]);
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused() {
        for text in ["null", "[]", "1", r#""{}""#, r#"{"defaultAction":1}"#, r#"{"defaultAction":["a"]}"#] {
            check_codes(text, &[Code::WrongType]);
        }
    }

    fn check_finding(text: &str, expected: &str) {
        let found: Vec<String> = check(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, [expected], "{text}");
    }

    #[test]
    fn a_finding_says_where_and_what_to_do() {
        check_finding(
            "{\n  \"defaultAction\": 7\n}",
            "error[wrong-type] line 2, column 20, $: invalid type: integer `7`, expected a string; \
             see the OCI runtime specification's LinuxSeccomp for the types",
        );
        check_finding(
            r#"{"defaultAction":"#,
            "error[invalid-json] line 1, column 17, $: EOF while parsing a value; \
             the document ends too early: copy all of it, and close what is open",
        );
        check_finding(
            "{} {}",
            "error[invalid-json] line 1, column 4, $: trailing characters; \
             comments, trailing commas and trailing data are not JSON",
        );
    }

    #[test]
    fn a_finding_does_not_quote_a_long_value_in_full() {
        let longest = "ä".repeat(LONGEST_MESSAGE - r#"invalid type: string ""#.len());
        check_finding(
            &format!("\"{}\"", "ä".repeat(300_000)),
            &format!(
                "error[wrong-type] line 1, column 600002, $: invalid type: string \"{longest}…; \
                 see the OCI runtime specification's LinuxSeccomp for the types"
            ),
        );
    }
}
