//! Errors of the command line itself: one line each, where clap prints several.

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::output;

/// Prints help where that was asked for, else what is wrong in one line; gives the exit status.
pub(crate) fn report(error: &clap::Error) -> ExitCode {
    let is_help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_help {
        // A closed pipe: nobody reads it.
        let _ = error.print();
    } else {
        output::note(&one_line(&error.render().to_string()));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Of clap's text: what is wrong, its tip, and the command whose help to read.
fn one_line(text: &str) -> String {
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

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_placeholder(word: &str) -> bool {
    word.chars().next().is_some_and(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::one_line;
    use crate::args::Cli;
    use clap::Parser;

    fn said(words: &[&str]) -> String {
        let error = Cli::try_parse_from(words).expect_err("bad words");
        one_line(&error.render().to_string())
    }

    #[test]
    fn an_error_is_one_line_that_names_the_help() {
        let text = said(&["swarmctl", "service", "create", "--replicas", "-1", "nginx"]);
        assert!(text.contains("'-1'") && text.contains("--replicas"), "{text}");
        assert!(text.contains("whole number"), "{text}");
        assert!(!text.contains('\n'), "{text}");

        let text = said(&["swarmctl", "service", "rm"]);
        assert!(text.contains("required") && text.contains("<SERVICE>"), "{text}");
        assert!(text.ends_with("(see 'swarmctl service rm --help')"), "{text}");

        let text = said(&["swarmctl", "node", "ls", "--nonsense"]);
        assert!(text.contains("'--nonsense'"), "{text}");
    }
}
