//! The advice for people.

use super::offers::ROOM_MAX;
use super::{Advice, Advised, Need};
use crate::page::{Page, Span, Tone, plain, toned};

/// Writes the advice.
pub(super) fn write(answer: &Advised, need: &Need, page: &mut Page) {
    let Advice { strategy, count, memory_mib, room, reason, .. } = &answer.recommended;
    page.line(vec![toned(Tone::Strong, strategy.word()), plain(asked(&answer.recommended))]);
    page.say(format!("  because {reason}"));
    if let (Some(memory), Some(room)) = (memory_mib, room) {
        let what = if count.is_some_and(|count| count > 1) { "each is" } else { "this is" };
        let room = if *room == ROOM_MAX { format!("{room} or more") } else { room.to_string() };
        page.say(format!(
            "  it needs {} and a tenth to spare, and {what} {memory}; room for {room} now",
            need.memory
        ));
    }
    if answer.manifest != serde_json::json!({}) {
        page.gap();
        page.say("Put into the pod template");
        for line in yaml(&answer.manifest) {
            page.say(format!("  {line}"));
        }
    }
    page.gap();
    page.say("Otherwise");
    page.table(2, &["STRATEGY", "REQUEST", "ROOM NOW", ""], answer.alternatives.iter().map(row).collect());
    for note in &answer.notes {
        page.tone(Tone::Dim, format!("Note: {note}"));
    }
}

fn asked(advice: &Advice) -> String {
    match (&advice.resource, advice.count) {
        (Some(resource), Some(count)) => format!(": {count} {resource}"),
        _ => String::new(),
    }
}

fn row(advice: &Advice) -> Vec<Span> {
    let request = asked(advice);
    let request = request.trim_start_matches(": ");
    vec![
        plain(advice.strategy.word()),
        plain(if request.is_empty() { "-" } else { request }),
        plain(advice.room.map_or_else(|| "-".to_owned(), |room| room.to_string())),
        toned(Tone::Dim, advice.reason.clone()),
    ]
}

/// The manifest's lines.
fn yaml(manifest: &serde_json::Value) -> Vec<String> {
    serde_saphyr::to_string(manifest).unwrap_or_default().lines().map(str::to_owned).collect()
}
