//! Where progress is shown: as a block with bars on a terminal, as lines of what changed elsewhere, or nowhere. On
//! stderr, so that stdout has the result alone.

use std::collections::HashSet;
use std::io::IsTerminal;

use crate::output;
use crate::screen::{Line, Screen};

/// How far something is, as swarmd says.
pub(crate) trait Report {
    /// On a terminal.
    fn picture(&self) -> Vec<Line>;

    /// Elsewhere.
    fn lines(&self) -> Vec<String>;
}

/// Where progress is shown.
pub(crate) enum Display {
    /// Nowhere.
    Quiet,
    /// As lines; holds those that were last printed.
    Plain(HashSet<String>),
    /// On a terminal.
    Screen(Screen),
}

impl Display {
    /// On a terminal if stderr is one that can be painted on.
    pub(crate) fn new(quiet: bool) -> Display {
        let paintable = || std::env::var_os("TERM").is_some_and(|name| name != "dumb");
        match () {
            () if quiet => Display::Quiet,
            () if std::io::stderr().is_terminal() && paintable() => {
                Display::Screen(Screen::default())
            }
            () => Display::Plain(HashSet::new()),
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, report: &impl Report) {
        match self {
            Display::Quiet => {}
            Display::Plain(last) => {
                let lines = report.lines();
                for line in lines.iter().filter(|line| !last.contains(*line)) {
                    output::note(line);
                }
                *last = lines.into_iter().collect();
            }
            Display::Screen(screen) => screen.show(report.picture()),
        }
    }

    /// Shows how it ended, in place of the last line.
    pub(crate) fn conclude(&mut self, text: &str) {
        match self {
            Display::Quiet => {}
            Display::Plain(_) => output::note(text),
            Display::Screen(screen) => screen.conclude(text),
        }
    }
}
