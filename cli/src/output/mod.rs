//! What is printed, and how: lines, lists as tables or JSON, times and sizes as people read them.

pub(crate) mod json;
pub(crate) mod size;
pub(crate) mod table;
pub(crate) mod time;

use std::io::Write;

use crate::args::{Format, ListArgs};
use crate::error::Error;

/// Prints `text` and a line end on stdout.
///
/// # Errors
/// [`Error::Output`], so that a closed pipe ends the command quietly.
pub(crate) fn line(text: &str) -> Result<(), Error> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes bytes on stdout as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::Output)
}

/// Asks the user something, on stderr, without an end of the line.
pub(crate) fn prompt(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Without stderr there is nobody to ask.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes a line for the user on stderr.
pub(crate) fn note(text: &str) {
    let shown: String = text
        .split_inclusive('\n')
        .flat_map(|line| {
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\n"));
            [printable(line), end.to_owned()]
        })
        .collect();
    // There is no other place to complain to.
    let _ = writeln!(std::io::stderr().lock(), "{shown}");
}

/// One line of a text that may come from other machines: its line ends would break a table, its escapes could
/// drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Says on stderr what went wrong.
pub(crate) fn failure(error: &Error) {
    if let Some(line) = error.line() {
        note(&line);
    }
}

/// Warns on stderr.
pub(crate) fn warn(text: &str) {
    note(&format!("warning: {text}"));
}

/// An object as a list shows it.
pub(crate) trait Row {
    /// Headers of the table's columns.
    const HEADERS: &'static [&'static str];
    /// What `-q` prints.
    fn id(&self) -> &str;
    /// The cells of the table, one for each header.
    fn cells(&self) -> Vec<String>;
    /// What `--format json` prints, with Docker's field names.
    fn json(&self) -> serde_json::Value;
}

/// Prints a list in the form that was asked for.
pub(crate) fn list<R: Row>(rows: &[R], list: &ListArgs) -> Result<(), Error> {
    let mut text = String::new();
    if list.quiet {
        for row in rows {
            text += row.id();
            text.push('\n');
        }
    } else if list.format == Format::Json {
        for row in rows {
            text += &row.json().to_string();
            text.push('\n');
        }
    } else {
        let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
        text = table::render(R::HEADERS, &cells);
    }
    raw(text.as_bytes())
}

/// The first 12 characters of an id, or all of it.
pub(crate) fn short(id: &str, no_trunc: bool) -> String {
    if no_trunc { id.to_owned() } else { id.chars().take(12).collect() }
}

/// `running` as `Running`.
pub(crate) fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => String::new(),
    }
}
