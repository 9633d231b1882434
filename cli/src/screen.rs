//! A block of lines on the terminal that is painted over as it changes. Every change is painted at once: the last of a
//! burst is the one that tells why it does not go on.

use std::io::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::output;
use crate::terminal;

/// Widest bar, and the narrowest that still says something.
const BAR: std::ops::RangeInclusive<usize> = 10..=50;
/// Most rows of a long line.
const MOST_ROWS: usize = 3;

/// A line of the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// Words, which go on in the next row where they are longer than the terminal is wide.
    Text(String),
    /// `head [===>   ] tail`, without the bar where there is no room for one.
    Bar {
        /// What it is about.
        head: String,
        /// How much is done,
        done: u64,
        /// of how much.
        of: u64,
        /// The same in words, or nothing.
        tail: String,
    },
}

/// The block on standard error.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    lines: Vec<Line>,
    block: Block,
}

impl Screen {
    /// Shows these lines instead of those there are.
    pub(crate) fn show(&mut self, lines: Vec<Line>) {
        self.lines = lines;
        let (columns, rows) = terminal::error_size();
        let text = self.block.repaint(&self.lines, columns, rows);
        let mut stderr = std::io::stderr().lock();
        // A terminal that is gone shows nothing; the command goes on, as with lines.
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }

    /// Shows `text` instead of the last line.
    pub(crate) fn conclude(&mut self, text: &str) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.pop();
        lines.push(Line::Text(text.to_owned()));
        self.show(lines);
    }
}

/// What was painted last. The cursor is at the beginning of the row below it.
#[derive(Debug, Default)]
struct Block {
    /// The width of each row.
    painted: Vec<usize>,
}

impl Block {
    /// What to write so that a terminal of this size shows these lines.
    fn repaint(&mut self, lines: &[Line], columns: usize, rows: usize) -> String {
        let new = layout(lines, columns, rows);
        let mut text = String::new();
        // Where the terminal has become too narrow for what is there, some terminals have broken its rows in two and
        // some have cut them: it is left alone, rather than to paint over what is not ours.
        let in_place = self.painted.iter().all(|width| *width <= columns);
        if in_place && !self.painted.is_empty() {
            text += &format!("\x1b[{}A\r", self.painted.len());
        }
        for row in &new {
            // Before the row: behind one that fills the terminal, some erase its last character.
            text += "\x1b[K";
            text += row;
            text.push('\n');
        }
        text += "\x1b[J";
        self.painted = new.iter().map(|row| row.width()).collect();
        text
    }
}

/// The rows of a block that fits a terminal. Long lines are cut first, then lines before the last are left out.
fn layout(lines: &[Line], columns: usize, rows: usize) -> Vec<String> {
    // The cursor has a row of its own.
    let room = rows.saturating_sub(1).max(1);
    let laid = |most| lines.iter().map(|line| line.rows(columns, most)).collect::<Vec<_>>();
    let mut laid_out = laid(MOST_ROWS);
    if laid_out.iter().map(Vec::len).sum::<usize>() > room {
        laid_out = laid(1);
    }
    let mut fitting = laid_out.concat();
    if fitting.len() > room {
        fitting.drain(room - 1..fitting.len() - 1);
    }
    fitting
}

impl Line {
    fn rows(&self, columns: usize, most: usize) -> Vec<String> {
        match self {
            Line::Text(text) => wrap(text, columns, most),
            Line::Bar { head, done, of, tail } => {
                let head = output::printable(head);
                let tail = if tail.is_empty() { String::new() } else { format!(" {tail}") };
                let taken = head.width() + " []".len() + tail.width();
                let width = columns.saturating_sub(taken).min(*BAR.end());
                if width < *BAR.start() {
                    return wrap(&format!("{}{tail}", head.trim_end()), columns, most);
                }
                vec![format!("{head} [{}]{tail}", bar(*done, *of, width))]
            }
        }
    }
}

fn bar(done: u64, of: u64, width: usize) -> String {
    let part = done.min(of) as f64 / of.max(1) as f64;
    let full = (width as f64 * part) as usize;
    let point = if full < width { ">" } else { "" };
    format!("{:<width$}", "=".repeat(full) + point)
}

/// Breaks a text into rows, the last of `most` cut short.
fn wrap(text: &str, columns: usize, most: usize) -> Vec<String> {
    let columns = columns.max(2); // room for one wide character
    let mut rows = vec![String::new()];
    let mut width = 0;
    for c in output::printable(text.trim_end()).chars() {
        let own = c.width().unwrap_or(0);
        if width + own > columns {
            if rows.len() == most {
                cut(&mut rows[most - 1], columns);
                return rows;
            }
            rows.push(String::new());
            width = 0;
        }
        rows.last_mut().expect("there is a row").push(c);
        width += own;
    }
    rows
}

/// Says at the end of a full row that it is not all.
fn cut(row: &mut String, columns: usize) {
    while row.width() >= columns && row.pop().is_some() {}
    row.push('…');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZero;

    fn bar_of(head: &str, tail: &str) -> Line {
        Line::Bar { head: head.to_owned(), done: 1, of: 2, tail: tail.to_owned() }
    }

    fn text(text: &str) -> Line {
        Line::Text(text.to_owned())
    }

    fn terminal(rows: usize, columns: usize) -> vt100::Parser {
        vt100::Parser::new(nonzero(rows), nonzero(columns), 0)
    }

    fn nonzero(size: usize) -> NonZero<u16> {
        NonZero::new(u16::try_from(size).unwrap()).unwrap()
    }

    fn resize(terminal: &mut vt100::Parser, columns: usize) {
        let (rows, _) = terminal.screen().size();
        terminal.screen_mut().set_size(rows, nonzero(columns));
    }

    /// What a terminal shows, without blank ends of lines.
    fn shown(terminal: &vt100::Parser) -> Vec<String> {
        let (_, columns) = terminal.screen().size();
        let rows = terminal.screen().rows(0, columns.get());
        let mut rows: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn paint(terminal: &mut vt100::Parser, block: &mut Block, lines: &[Line]) {
        let (rows, columns) = terminal.screen().size();
        let text = block.repaint(lines, columns.get().into(), rows.get().into());
        // Not every terminal erases as this one does behind a row that fills it: there it must not be asked to.
        for (at, _) in text.match_indices("\x1b[K") {
            assert!(at == 0 || text[..at].ends_with(['\r', '\n']), "{text:?}");
        }
        terminal.process(text.replace('\n', "\r\n").as_bytes());
    }

    #[test]
    fn a_bar_takes_the_room_there_is() {
        let rows = |columns| layout(&[bar_of("1/2: starting ", "")], columns, 24).concat();
        assert_eq!(rows(80), "1/2: starting  [=========================>                        ]");
        assert_eq!(rows(40), "1/2: starting  [===========>           ]");
        assert_eq!(rows(20), "1/2: starting");
        let with_words = bar_of("  rotated TLS certificates:", "1/2 nodes");
        assert_eq!(
            layout(std::slice::from_ref(&with_words), 20, 24),
            ["  rotated TLS certif", "icates: 1/2 nodes"]
        );
    }

    #[test]
    fn long_words_go_on_below_and_are_cut_at_last() {
        let lines = [text("exec: \"/nope\": no such file or directory")];
        assert_eq!(layout(&lines, 20, 24), ["exec: \"/nope\": no su", "ch file or directory"]);
        assert_eq!(layout(&lines, 10, 24), ["exec: \"/no", "pe\": no su", "ch file o…"]);
        assert_eq!(layout(&lines, 20, 2), ["exec: \"/nope\": no s…"]);
        assert_eq!(layout(&[text("日本語日本語")], 5, 24), ["日本", "語日", "本語"]);
    }

    #[test]
    fn a_low_terminal_has_the_first_lines_and_the_last() {
        let lines: Vec<Line> = (1..=9).map(|number| text(&number.to_string())).collect();
        assert_eq!(layout(&lines, 80, 5), ["1", "2", "3", "9"]);
        assert_eq!(layout(&lines, 80, 1), ["9"]);
    }

    #[test]
    fn what_was_above_stays_when_the_terminal_becomes_narrow() {
        let mut terminal = terminal(10, 30);
        terminal.process(b"the id\r\n");
        let mut block = Block::default();
        paint(&mut terminal, &mut block, &[text("a line of 25 characters..")]);
        resize(&mut terminal, 20);
        paint(&mut terminal, &mut block, &[text("new")]);
        paint(&mut terminal, &mut block, &[text("newer")]);
        assert_eq!(shown(&terminal), ["the id", "a line of 25 charact", "newer"]);
        resize(&mut terminal, 40);
        paint(&mut terminal, &mut block, &[text("newest")]);
        assert_eq!(shown(&terminal), ["the id", "a line of 25 charact", "newest"]);
    }

    fn line() -> impl Strategy<Value = Line> {
        prop_oneof![
            "[a-z日é\u{1b} ]{0,70}".prop_map(Line::Text),
            ("[a-z]{0,30}", 0..9u64, 0..9u64, "[a-z]{0,9}")
                .prop_map(|(head, done, of, tail)| Line::Bar { head, done, of, tail }),
        ]
    }

    proptest! {
        /// Whatever was painted before, the terminal shows the last block and nothing else.
        #[test]
        fn the_last_block_is_what_is_shown(
            columns in 2..90usize,
            rows in 1..12usize,
            blocks in prop::collection::vec(prop::collection::vec(line(), 1..14), 1..5),
        ) {
            let mut terminal = terminal(rows, columns);
            let mut block = Block::default();
            for lines in &blocks {
                paint(&mut terminal, &mut block, lines);
            }
            let last = layout(blocks.last().unwrap(), columns, rows);
            prop_assert!(last.iter().all(|row| row.width() <= columns));
            let mut wanted: Vec<String> =
                last.iter().map(|row| row.trim_end().to_owned()).collect();
            while wanted.last().is_some_and(String::is_empty) {
                wanted.pop();
            }
            let shown = shown(&terminal);
            // A terminal of one row shows where the cursor is.
            if rows > 1 {
                prop_assert_eq!(shown, wanted);
            }
        }
    }
}
