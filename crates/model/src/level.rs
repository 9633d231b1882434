//! Feature levels: by them versions of `swarmd` that work together know what all of them understand.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A feature level. A version speaks all levels up to its own; a swarm is at the highest that all its nodes have had in
/// common at one moment, and never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FeatureLevel(NonZeroU32);

impl FeatureLevel {
    /// What every version speaks.
    pub const FIRST: FeatureLevel = FeatureLevel(NonZeroU32::MIN);
    /// What this version speaks. `HACKING.md` tells when it grows.
    pub const NEWEST: FeatureLevel = FeatureLevel::FIRST;

    /// The level of this number; none for 0.
    pub const fn new(number: u32) -> Option<FeatureLevel> {
        match NonZeroU32::new(number) {
            Some(number) => Some(FeatureLevel(number)),
            None => None,
        }
    }

    /// Its number, from 1.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl Default for FeatureLevel {
    fn default() -> FeatureLevel {
        FeatureLevel::FIRST
    }
}

impl fmt::Display for FeatureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
