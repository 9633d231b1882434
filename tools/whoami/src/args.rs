//! Command line options, without a dependency: flags, options with a value, then words.

use std::str::FromStr;
use std::time::Duration;

/// Why a command does not exit with 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Exit status 2.
    Usage(String),
    /// Exit status 1; empty when everything was said already.
    Failed(String),
}

impl Failure {
    pub(crate) fn failed(text: impl std::fmt::Display) -> Self {
        Self::Failed(text.to_string())
    }
}

/// The words after the command; each `flag` or `option` takes its own out.
pub(crate) struct Args {
    words: Vec<String>,
}

impl Args {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// The value of `--name VALUE` or `--name=VALUE`.
    pub(crate) fn option<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let with_equals = format!("{name}=");
        let found = self.words.iter().position(|w| w == name || w.starts_with(&with_equals));
        let Some(at) = found else {
            return Ok(None);
        };
        let word = self.words.remove(at);
        let value = match word.strip_prefix(&with_equals) {
            Some(value) => value.to_owned(),
            None if at < self.words.len() => self.words.remove(at),
            None => return Err(Failure::Usage(format!("{name} needs a value"))),
        };
        match value.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Failure::Usage(format!("bad value {value:?} of {name}"))),
        }
    }

    /// An option in seconds, fractions allowed, more than 0.
    pub(crate) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, Failure> {
        let Some(seconds) = self.option::<f64>(name)? else {
            return Ok(None);
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => Err(Failure::Usage(format!("bad value {seconds} of {name}"))),
        }
    }

    /// What is left when every option was taken.
    pub(crate) fn rest(self) -> Result<Vec<String>, Failure> {
        match self.words.iter().find(|word| word.starts_with('-') && word.len() > 1) {
            Some(word) => Err(Failure::Usage(format!("unknown option {word}"))),
            None => Ok(self.words),
        }
    }

    /// Exactly `N` words, which usage calls `names`.
    pub(crate) fn words<const N: usize>(self, names: &str) -> Result<[String; N], Failure> {
        <[String; N]>::try_from(self.rest()?)
            .map_err(|_| Failure::Usage(format!("it takes {names}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Args {
        Args::new(text.split(' ').map(str::to_owned).collect())
    }

    #[test]
    fn options_come_in_any_order() {
        let mut a = args("-n 3 host --summary --timeout=0.5");
        assert_eq!(a.option::<u32>("-n"), Ok(Some(3)));
        assert!(a.flag("--summary") && !a.flag("--tcp"));
        assert_eq!(a.seconds("--timeout"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(a.words::<1>("HOST"), Ok(["host".to_owned()]));
    }

    #[test]
    fn wrong_options_are_named() {
        assert!(args("-n").option::<u32>("-n").is_err());
        assert!(args("-n -3").option::<u32>("-n").is_err());
        assert!(args("--timeout -1").seconds("--timeout").is_err());
        assert!(
            matches!(args("--what x").rest(), Err(Failure::Usage(text)) if text.contains("--what"))
        );
        assert!(args("a b").words::<1>("HOST").is_err());
    }
}
