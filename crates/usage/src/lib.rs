//! Errors of a command line: one line each that begins with `error: `, where clap prints several.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

/// Prints help where that was asked for, else what is wrong in one line; gives the exit status.
pub fn report(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind as Kind;
    let is_help = matches!(
        error.kind(),
        Kind::DisplayHelp | Kind::DisplayVersion | Kind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    // Where neither can be written nobody reads it.
    let _ = match is_help {
        true => error.print(),
        false => writeln!(std::io::stderr(), "{}", line(error)),
    };
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What is wrong, clap's tip, and the command whose help to read, as it was typed.
pub fn line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let mut line = words(paragraphs.next().unwrap_or_default());
    let mut help = String::new();
    for paragraph in paragraphs {
        let paragraph = paragraph.trim();
        if paragraph.starts_with("tip:") {
            // Further tips are for arguments that begin with a hyphen, which is rarely meant.
            let first = paragraph.split("tip:").nth(1).unwrap_or_default();
            line = format!("{line}; tip: {}", words(first));
        } else if let Some(usage) = paragraph.strip_prefix("Usage:") {
            let command = usage.split_whitespace().take_while(|w| !w.starts_with(['[', '<', '-']));
            help = command.take_while(|word| !is_placeholder(word)).collect::<Vec<_>>().join(" ");
        }
    }
    if help.is_empty() { line } else { format!("{line} (see '{help} --help')") }
}

/// The words, one space apart. What was typed may hold escapes that drive a terminal.
fn words(text: &str) -> String {
    let text = text.replace(|c: char| c.is_control(), " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_placeholder(word: &str) -> bool {
    word.chars().next().is_some_and(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::line;
    use clap::{Arg, Command};

    fn said(words: &[&str]) -> String {
        let number = Arg::new("replicas").long("replicas").value_parser(clap::value_parser!(u64));
        let create = Command::new("create").arg(number.allow_negative_numbers(true));
        let remove = Command::new("rm").arg(Arg::new("SERVICE").required(true));
        let service = Command::new("service").subcommands([create, remove]);
        let program = Command::new("swarmctl").subcommand(service);
        line(&program.try_get_matches_from(words).expect_err("bad words"))
    }

    #[test]
    fn an_error_is_one_line_that_names_the_help() {
        let text = said(&["swarmctl", "service", "create", "--replicas", "-1"]);
        assert!(text.starts_with("error: invalid value '-1' for '--replicas"), "{text}");
        let text = said(&["swarmctl", "service", "rm"]);
        assert!(text.starts_with("error: ") && text.contains("<SERVICE>"), "{text}");
        assert!(text.ends_with("(see 'swarmctl service rm --help')"), "{text}");
        let text = said(&["swarmctl", "service", "create", "--replica", "1"]);
        assert!(text.contains("; tip: ") && text.contains("'--replicas'"), "{text}");
    }

    #[test]
    fn what_was_typed_does_not_drive_the_terminal() {
        let text = said(&["swarmctl", "service", "\x1b[2J\x07one\r\ntwo"]);
        assert!(text.contains("one two") && !text.contains(char::is_control), "{text}");
    }
}
