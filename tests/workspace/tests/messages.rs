//! `docs/troubleshooting.md` quotes what the programs print, and has a row for everything that they log as a warning or an error.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use stowage_shared::belief::{KEPT_FOR_GPU_PODS, NO_GPUS, Unknown};
use stowage_shared::contract::{
    DISTINCT_GPUS_ANNOTATION, GPU_MEMORY_MIN_ANNOTATION, GPU_MODEL_ANNOTATION, SCHEDULER_NAME,
    SHARE_MEMORY_ANNOTATION, SHARE_MILLI_ANNOTATION, SHARE_WITH_ANNOTATION,
};
use stowage_shared::pack::NoFit;
use stowage_shared::policy::NotAllowed;
use stowage_shared::resource::ResourceName;
use stowage_workspace_tests::pages::{page, root};

/// Messages of the kubelet, which are not in our sources.
const OTHERS: [&str; 1] = ["UnexpectedAdmissionError"];

/// The messages of the page: the first cell of each row of a table whose first column is headed `message`.
fn quoted() -> Vec<String> {
    let text = page("troubleshooting.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split("` |").next());
    rows.filter(|message| !OTHERS.contains(message)).map(str::to_owned).collect()
}

/// The sources of the programs, without their tests.
fn sources() -> Vec<String> {
    let crates = ["device-plugin", "scheduler-extender", "shared", "ops", "cli"];
    let mut open: Vec<PathBuf> = crates.iter().map(|name| root().join(name).join("src")).collect();
    let mut texts = Vec::new();
    while let Some(folder) = open.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("tests.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                texts.push(text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned());
            }
        }
    }
    texts
}

/// The string literals of a source, as they are printed: with the values of our constants, and lines that go on joined.
fn literals(source: &str) -> Vec<String> {
    // Quotes in comments begin no text.
    let lines: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n");
    let mut literals = Vec::new();
    let mut rest = &code[..];
    while let Some((before, after)) = rest.split_once('"') {
        if before.ends_with('\'') {
            rest = after;
            continue;
        }
        let end = end_of(after);
        literals.push(printed(&after[..end]));
        rest = after.get(end + 1..).unwrap_or_default();
    }
    literals
}

/// Where a string literal ends.
fn end_of(text: &str) -> usize {
    let mut escaped = false;
    let ends = |c: char| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    };
    text.find(ends).unwrap_or(text.len())
}

fn printed(literal: &str) -> String {
    let mut text = String::new();
    for (number, part) in literal.split("\\\n").enumerate() {
        text += if number == 0 { part } else { part.trim_start() };
    }
    for (name, value) in [
        ("{GPU_MODEL_ANNOTATION}", GPU_MODEL_ANNOTATION),
        ("{GPU_MEMORY_MIN_ANNOTATION}", GPU_MEMORY_MIN_ANNOTATION),
        ("{DISTINCT_GPUS_ANNOTATION}", DISTINCT_GPUS_ANNOTATION),
        ("{SHARE_WITH_ANNOTATION}", SHARE_WITH_ANNOTATION),
        ("{SHARE_MEMORY_ANNOTATION}", SHARE_MEMORY_ANNOTATION),
        ("{SHARE_MILLI_ANNOTATION}", SHARE_MILLI_ANNOTATION),
        ("{SCHEDULER_NAME}", SCHEDULER_NAME),
    ] {
        text = text.replace(name, value);
    }
    text
}

/// Whether a literal prints that message: what stands between the `…` comes in its order, from its beginning to its end, and
/// what the program puts in between.
fn prints(literal: &str, message: &str) -> bool {
    let parts: Vec<&str> = message.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return literal == message };
    let Some(mut rest) = literal.strip_prefix(first) else { return false };
    for part in middle {
        let Some((between, after)) = rest.split_once(part) else { return false };
        if !between.contains('{') {
            return false;
        }
        rest = after;
    }
    rest.strip_suffix(last).is_some_and(|between| between.contains('{'))
}

#[test]
fn every_message_of_the_page_is_one_that_a_program_prints() {
    let known: Vec<String> = sources().iter().flat_map(|source| literals(source)).collect();
    let quoted = quoted();
    assert!(quoted.len() > 100, "the page has another shape: {}", quoted.len());
    let gone: Vec<_> =
        quoted.iter().filter(|message| !known.iter().any(|literal| prints(literal, message))).collect();
    assert!(gone.is_empty(), "docs/troubleshooting.md quotes what nobody prints: {gone:#?}");
}

#[test]
fn every_warning_and_error_of_the_programs_has_its_row() {
    let quoted = quoted();
    let mut found = 0;
    for source in sources() {
        let calls = source.split("tracing::warn!(").skip(1).chain(source.split("tracing::error!(").skip(1));
        for call in calls {
            // The message is the last literal of the call, and a sentence.
            let call = &call[..call.find(");").unwrap_or(call.len())];
            let message = literals(call).pop().unwrap_or_default();
            if message.starts_with('{') || message.is_empty() {
                continue;
            }
            found += 1;
            assert!(quoted.contains(&message), "docs/troubleshooting.md lacks {message:?}");
        }
    }
    assert!(found > 40, "the programs log in another way: {found}");
}

#[test]
fn every_reason_of_a_waiting_pod_has_its_row() {
    let name = ResourceName::gpu;
    let fits = [
        NoFit::NotOffered(name()),
        NoFit::TooFew(name()),
        NoFit::TooLarge(name()),
        NoFit::Unhealthy(name()),
        NoFit::Full(name()),
    ];
    let policies = [
        NotAllowed::Model,
        NotAllowed::Memory,
        NotAllowed::OtherNamespace,
        NotAllowed::Kept,
        NotAllowed::Distinct,
    ];
    let said = fits.map(|why| why.to_string().replace(name().as_str(), "…"));
    let said = said.into_iter().chain(policies.map(|why| why.to_string()));
    let said = said.chain(Unknown::ALL.map(|why| why.to_string()));
    let quoted = quoted();
    for reason in said.chain([NO_GPUS, KEPT_FOR_GPU_PODS].map(str::to_owned)) {
        assert!(quoted.contains(&reason), "docs/troubleshooting.md lacks {reason:?}");
    }
}
