//! What a command answers, and how it is printed.

use std::io::Write;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::page::{Page, Style};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For programs that people read.
    Yaml,
}

/// An answer for people and for programs.
#[derive(Debug)]
pub struct Answer {
    /// For people.
    pub page: Page,
    /// For programs: the same facts.
    pub value: Value,
    /// Whether the command ends with 1: something was found, or does not fit.
    pub found: bool,
}

impl Answer {
    /// An answer whose value is made of `facts`.
    ///
    /// # Errors
    /// Where the facts cannot be said in JSON, which would be a defect.
    pub fn new(page: Page, facts: &impl Serialize) -> Result<Self> {
        let value = serde_json::to_value(facts).context("cannot say the answer in JSON")?;
        Ok(Self { page, value, found: false })
    }

    /// Prints it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn print(&self, output: Output, style: Style, out: &mut impl Write) -> Result<()> {
        let text = match output {
            Output::Text => self.page.render(style),
            Output::Json => format!("{:#}\n", self.value),
            Output::Yaml => serde_saphyr::to_string(&self.value).context("cannot say the answer in YAML")?,
        };
        Ok(out.write_all(text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_harmless_and_says_the_same() {
        let value = serde_json::json!({"name": "a\u{1b}[2Jb\nc: d", "count": 1});
        let answer = Answer { page: Page::default(), value: value.clone(), found: false };
        for output in [Output::Json, Output::Yaml] {
            let mut out = Vec::new();
            answer.print(output, Style::Colour, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains('\u{1b}'), "{text:?}");
            let again: Value = match output {
                Output::Yaml => serde_saphyr::from_str(&text).unwrap(),
                _ => serde_json::from_str(&text).unwrap(),
            };
            assert_eq!(again, value);
        }
    }
}
