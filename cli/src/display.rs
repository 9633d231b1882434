//! Where progress is shown: as bars on a terminal, as lines of what changed elsewhere, or nowhere. On stderr, so that
//! stdout has the result alone.

use std::collections::HashSet;
use std::io::IsTerminal;

use crate::output;

/// One kind of progress, as bars and as lines.
pub(crate) trait Bars {
    /// What swarmd says of it.
    type Message;

    /// Bars of nothing yet.
    fn new() -> Self;

    /// Shows a message as bars.
    fn show(&mut self, message: &Self::Message);

    /// What a message says, as lines.
    fn lines(message: &Self::Message) -> Vec<String>;
}

/// Where progress is shown.
pub(crate) enum Display<B> {
    /// Nowhere.
    Quiet,
    /// As lines; holds those that were last printed.
    Plain(HashSet<String>),
    /// As bars.
    Bars(B),
}

impl<B: Bars> Display<B> {
    /// Bars if stderr is a terminal.
    pub(crate) fn new(quiet: bool) -> Display<B> {
        match () {
            () if quiet => Display::Quiet,
            () if std::io::stderr().is_terminal() => Display::Bars(B::new()),
            () => Display::Plain(HashSet::new()),
        }
    }

    /// Shows a message of swarmd.
    pub(crate) fn show(&mut self, message: &B::Message) {
        match self {
            Display::Quiet => {}
            Display::Plain(last) => {
                let lines = B::lines(message);
                for line in lines.iter().filter(|line| !last.contains(*line)) {
                    output::note(line);
                }
                *last = lines.into_iter().collect();
            }
            Display::Bars(bars) => bars.show(message),
        }
    }
}
