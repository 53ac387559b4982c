//! An error with its causes, in one line.

use std::error::Error;

/// `error: cause: cause of that`; a cause that the text before it repeats already is left out.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file")]
    struct Outer(#[source] std::io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("no list: {0}")]
    struct Repeats(#[source] Outer);

    #[test]
    fn every_cause_is_said_once() {
        let error = Repeats(Outer(std::io::Error::other("disk is gone")));
        assert_eq!(chain(&error), "no list: cannot read the file: disk is gone");
    }
}
