//! The node names of a request, where they stand in its body.
//!
//! A request may carry thousands: none is copied to be looked up, nor escaped anew to be answered.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

/// A node's name, borrowed from the body unless it has escapes, which no node's name needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl Name<'_> {
    /// The name of an API object.
    pub(super) fn of(object: &Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        Self(Cow::Owned(name.to_owned()))
    }

    /// The name.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// How long it is as JSON; an escaped one may be longer.
    pub(super) fn json_len(&self) -> usize {
        self.0.len() + 2
    }

    /// Appends it as JSON.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match &self.0 {
            // It had no escapes in the request, so it needs none in the answer.
            Cow::Borrowed(text) => {
                out.push(b'"');
                out.extend_from_slice(text.as_bytes());
                out.push(b'"');
            }
            Cow::Owned(text) => super::write_json(out, text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_borrowed_unless_they_have_escapes_and_are_written_as_they_were(name in ".{0,12}") {
            let json = serde_json::to_string(&[&name]).unwrap();
            let names: Vec<Name<'_>> = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(names[0].text(), &name);
            prop_assert_eq!(matches!(names[0].0, Cow::Borrowed(_)), !json.contains('\\'));
            let mut out = Vec::new();
            names[0].write(&mut out);
            prop_assert_eq!(format!("[{}]", String::from_utf8(out).unwrap()), json);
        }
    }
}
