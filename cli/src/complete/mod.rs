//! What may be typed next: the answer to kubectl, when somebody presses Tab behind `kubectl stowage`.
//!
//! kubectl runs the program `kubectl_complete-stowage` with the words that are there and the one that was begun, and reads
//! a candidate from each line and, from the last, what the shell is to do besides. What is wanted follows from the flags'
//! own definition (`wanted`, pure); names of pods, namespaces and contexts are looked up.

mod lookup;

use std::io::{self, Write};

use clap::{Arg, Command, ValueHint};

use crate::connect::Connection;
use crate::page::printable;

/// Cobra's ShellCompDirectiveDefault: where there is no candidate, the shell offers files.
const OR_FILES: &str = ":0";
/// Cobra's ShellCompDirectiveNoFileComp.
const NO_FILES: &str = ":4";

/// What the word that was begun may become.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    /// One of these words, each with what it means.
    Words(Vec<(String, String)>),
    /// A file, which the shell knows best.
    File,
    /// A pod's name.
    Pod,
    /// A namespace's name.
    Namespace,
    /// A context of the kubeconfig.
    Context,
}

/// Prints what `words` may go on with; the last of them is the one that was begun, and empty where none was.
///
/// # Errors
/// Where it cannot be printed. What cannot be looked up is no candidate, and no error: somebody is in the middle of a word.
pub async fn complete(command: Command, words: &[String], out: &mut impl Write) -> io::Result<()> {
    let (begun, before) = words.split_last().map_or(("", words), |(begun, before)| (begun.as_str(), before));
    let (wanted, connection) = wanted(command, before, begun);
    // With `--flag=value` the whole word is what a candidate replaces.
    let value_at = if begun.starts_with("--") { begun.find('=').map_or(0, |at| at + 1) } else { 0 };
    let (flag, begun) = begun.split_at(value_at);
    let candidates = match wanted {
        Wanted::File => return writeln!(out, "{OR_FILES}"),
        Wanted::Words(words) => words,
        Wanted::Pod => lookup::pods(&connection).await,
        Wanted::Namespace => lookup::namespaces(&connection).await,
        Wanted::Context => lookup::contexts(&connection),
    };
    for (word, meaning) in candidates.iter().filter(|(word, _)| word.starts_with(begun)) {
        let word = printable(word);
        match meaning.as_str() {
            "" => writeln!(out, "{flag}{word}")?,
            meaning => writeln!(out, "{flag}{word}\t{meaning}")?,
        }
    }
    writeln!(out, "{NO_FILES}")
}

/// What the word that was begun may become, and which cluster the words before it name.
fn wanted(mut command: Command, before: &[String], begun: &str) -> (Wanted, Connection) {
    // Flags that may stand anywhere are handed on to every subcommand by it.
    command.build();
    let mut connection = Connection::default();
    let mut current = &command;
    let mut positional = 0;
    let mut words = before.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if let Some((flag, value)) = flag(current, word) {
            let value = match value {
                Some(value) => value,
                None if !flag.get_action().takes_values() => continue,
                None => match words.next() {
                    Some(value) => value,
                    None => return (value_of(flag), connection),
                },
            };
            note(&mut connection, flag, value);
        } else if let Some(next) = current.find_subcommand(word) {
            (current, positional) = (next, 0);
        } else if !word.starts_with('-') {
            positional += 1;
        }
    }
    let wanted = match flag(current, begun) {
        Some((flag, Some(_))) if begun.starts_with("--") => value_of(flag),
        _ if begun.starts_with('-') => Wanted::Words(flags(current)),
        _ => match current.get_positionals().nth(positional) {
            Some(argument) => value_of(argument),
            None => Wanted::Words(subcommands(current)),
        },
    };
    (wanted, connection)
}

/// The flag that a word is, and its value if it is in the same word.
fn flag<'a>(command: &'a Command, word: &'a str) -> Option<(&'a Arg, Option<&'a str>)> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        return Some((command.get_arguments().find(|flag| flag.get_long() == Some(name))?, value));
    }
    let mut letters = word.strip_prefix('-')?.chars();
    let name = letters.next()?;
    let flag = command.get_arguments().find(|flag| flag.get_short() == Some(name))?;
    Some((flag, Some(letters.as_str()).filter(|value| !value.is_empty())))
}

fn note(connection: &mut Connection, flag: &Arg, value: &str) {
    match flag.get_id().as_str() {
        "kubeconfig" => connection.kubeconfig = Some(value.into()),
        "context" => connection.context = Some(value.to_owned()),
        "namespace" => connection.namespace = Some(value.to_owned()),
        _ => {}
    }
}

fn value_of(argument: &Arg) -> Wanted {
    match argument.get_id().as_str() {
        "pod" | "for" => return Wanted::Pod,
        "namespace" => return Wanted::Namespace,
        "context" => return Wanted::Context,
        _ if argument.get_value_hint() == ValueHint::AnyPath => return Wanted::File,
        _ => {}
    }
    let values = argument.get_possible_values();
    let values = values.iter().filter(|value| !value.is_hide_set());
    Wanted::Words(values.map(|value| (value.get_name().to_owned(), meaning(value.get_help()))).collect())
}

fn flags(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|flag| !flag.is_hide_set());
    shown.filter_map(|flag| Some((format!("--{}", flag.get_long()?), meaning(flag.get_help())))).collect()
}

fn subcommands(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown.map(|command| (command.get_name().to_owned(), meaning(command.get_about()))).collect()
}

/// The first line of a help text.
fn meaning(help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::flags::Cli;

    /// What is wanted behind `line`, the last word of which was begun.
    fn ask(line: &str) -> (Wanted, Connection) {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (begun, before) = words.split_last().unwrap();
        wanted(Cli::command(), before, begun)
    }

    #[track_caller]
    fn check(line: &str, expect: &[&str]) {
        let Wanted::Words(words) = ask(line).0 else { panic!("{line}: {:?}", ask(line).0) };
        for expect in expect {
            assert!(words.iter().any(|(word, _)| word == expect), "{line}: no {expect} in {words:?}");
        }
    }

    #[test]
    fn commands_come_first_and_then_their_own() {
        check("", &["map", "explain", "what-if", "simulate"]);
        check("-n team-a -A wh", &["map", "what-if"]);
        check("simulate ", &["mig", "day"]);
        assert_eq!(ask("nodes ").0, Wanted::Words(Vec::new()), "and nothing where there is none");
    }

    #[test]
    fn flags_are_those_of_the_command_and_those_that_stand_anywhere() {
        check("defrag --", &["--max-moves", "--apply", "--namespace", "--output"]);
        check("nodes -", &["--context"]);
    }

    #[test]
    fn values_are_those_that_the_flag_takes() {
        for line in ["nodes -o ", "-o ", "nodes --output ", "nodes --output=", "--output=js"] {
            check(line, &["text", "json", "yaml"]);
        }
        check("completion ", &["bash", "zsh", "fish"]);
        assert_eq!(ask("what-if -f ").0, Wanted::File);
        assert_eq!(ask("--kubeconfig ").0, Wanted::File);
    }

    #[test]
    fn names_are_looked_up_where_the_words_before_say() {
        let (pod, connection) = ask("--context=prod explain -n team -o json web");
        assert_eq!(pod, Wanted::Pod);
        assert_eq!(
            (connection.namespace.as_deref(), connection.context.as_deref()),
            (Some("team"), Some("prod"))
        );
        assert_eq!(ask("defrag --for ").0, Wanted::Pod);
        assert_eq!(ask("nodes -n ").0, Wanted::Namespace);
        assert_eq!(ask("nodes --context ").0, Wanted::Context);
        assert_eq!(ask("explain web-0 ").0, Wanted::Words(Vec::new()), "explain takes one pod");
    }
}
