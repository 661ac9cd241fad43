//! The text of a document, taken apart with the place of each part.
//!
//! `serde_json` decides what is JSON; a value is the slice of the text that it found, and a slice knows where
//! it is. Nothing is decoded before somebody asks for it, so deep nesting costs no stack.
//!
//! Invariant: a [`Value`] is a slice of its [`Source`]'s text, and is JSON.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::value::RawValue;

use crate::diagnostic::Place;
use crate::findings::cut;

/// The text of a document.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a>(&'a str);

/// A value in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a>(&'a str);

/// A member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member<'a> {
    pub(crate) key: String,
    /// Where the key is.
    pub(crate) place: Value<'a>,
    pub(crate) value: Value<'a>,
}

/// The kinds of JSON values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

impl<'a> Source<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }

    pub(crate) fn text(self) -> &'a str {
        self.0
    }

    /// The document's only value.
    pub(crate) fn root(self) -> Result<Value<'a>, serde_json::Error> {
        serde_json::from_str::<&RawValue>(self.0).map(|raw| Value(raw.get()))
    }

    /// Where `value` is, which stands at `path`.
    pub(crate) fn place(self, value: Value<'a>, path: String) -> Place {
        let offset = (value.0.as_ptr() as usize).saturating_sub(self.0.as_ptr() as usize);
        let before = self.0.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
        Place { position: Some((line, column)), path }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'"') => Kind::Text,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            _ => Kind::Number,
        }
    }

    /// Decodes it; none if it is of another type, or a number out of range.
    pub(crate) fn decode<T: Deserialize<'a>>(self) -> Option<T> {
        serde_json::from_str(self.0).ok()
    }

    /// The elements, if it is an array.
    pub(crate) fn elements(self) -> Option<Vec<Self>> {
        let elements: Vec<&RawValue> = self.decode()?;
        Some(elements.into_iter().map(|raw| Self(raw.get())).collect())
    }

    /// The members, if it is an object: all of them, in their order.
    pub(crate) fn members(self) -> Option<Vec<Member<'a>>> {
        self.decode::<Members<'_>>().map(|members| members.0)
    }

    /// How deep arrays and objects are nested in it.
    pub(crate) fn depth(self) -> usize {
        let (mut depth, mut deepest, mut in_text, mut is_escaped) = (0_usize, 0, false, false);
        for byte in self.0.bytes() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if in_text => is_escaped = true,
                b'"' => in_text = !in_text,
                b'[' | b'{' if !in_text => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' if !in_text => depth -= 1,
                _ => {}
            }
        }
        deepest
    }

    /// The text of the value, cut to what a message can hold.
    pub(crate) fn excerpt(self) -> String {
        cut(self.0, 40)
    }
}

struct Members<'a>(Vec<Member<'a>>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Keeps the order and repeated keys, which no map does.
struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            let place = Value(key.get());
            let key = serde_json::from_str(key.get()).map_err(de::Error::custom)?;
            members.push(Member { key, place, value: Value(value.get()) });
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_knows_its_place() {
        let source = Source::new("{\n  \"a\": [1,\n    {\"b\": \"é\", \"c\": 2}]}");
        let root = source.root().unwrap();
        let member = |value: Value<'static>, key: &str| {
            value.members().unwrap().into_iter().find(|member| member.key == key).unwrap()
        };
        let a = member(root, "a");
        let object = a.value.elements().unwrap()[1];
        let c = member(object, "c");
        for (value, expected) in
            [(root, (1, 1)), (a.place, (2, 3)), (a.value, (2, 8)), (object, (3, 5)), (c.value, (3, 22))]
        {
            assert_eq!(source.place(value, String::new()).position, Some(expected), "{value:?}");
        }
    }

    #[test]
    fn repeated_keys_are_kept_in_their_order() {
        let root = Source::new(r#"{"b":1,"a":2,"b":3,"\u0062":4}"#).root().unwrap();
        let members: Vec<(String, u64)> = root
            .members()
            .unwrap()
            .into_iter()
            .map(|member| (member.key, member.value.decode().unwrap()))
            .collect();
        assert_eq!(members, [("b", 1), ("a", 2), ("b", 3), ("b", 4)].map(|(key, n)| (key.to_owned(), n)));
    }

    #[test]
    fn depth_is_told_without_recursion() {
        let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(Source::new(&deep).root().unwrap().depth(), 500_000);
        assert_eq!(Source::new(r#"{"a":"[[[\"[","b":[{}]}"#).root().unwrap().depth(), 3);
        assert_eq!(Source::new("1").root().unwrap().depth(), 0);
    }

    #[test]
    fn an_excerpt_is_short() {
        let long = format!("\"{}\"", "é".repeat(100));
        let excerpt = Source::new(&long).root().unwrap().excerpt();
        assert_eq!(excerpt.chars().count(), 41);
        assert_eq!(Source::new("12").root().unwrap().excerpt(), "12");
    }
}
