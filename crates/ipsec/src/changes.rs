//! What a `program` did: nothing, when the kernel already was as it should be.

use std::fmt;

/// Number of kernel objects set or deleted, by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// Default-deny policies.
    pub denials: usize,
    /// Policies of peers.
    pub policies: usize,
    /// Security associations.
    pub associations: usize,
    /// The incarnation that was drawn because a key in use had been lost: new keys are needed.
    pub incarnation: Option<u64>,
    /// Security associations that were kept for a peer that did not come back in time. They were as they should be, and
    /// are not counted.
    pub forgotten: usize,
    /// Peers that nothing is sent to until they have a key that was never used. Not counted.
    pub waiting: usize,
}

impl Changes {
    /// Everything that was changed together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.denials + self.policies + self.associations + usize::from(self.incarnation.is_some())
    }

    /// Whether the kernel was as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }
}

/// `1 policy, 2 security associations`, or `nothing`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.denials, "default-deny policy", "default-deny policies"),
            (self.policies, "policy", "policies"),
            (self.associations, "security association", "security associations"),
            (usize::from(self.incarnation.is_some()), "new incarnation", ""),
            (self.forgotten, "forgotten association", "forgotten associations"),
            (self.waiting, "peer waiting for a new key", "peers waiting for new keys"),
        ];
        let mut separator = "";
        for (count, one, many) in parts.into_iter().filter(|(count, _, _)| *count > 0) {
            write!(f, "{separator}{count} {}", if count == 1 { one } else { many })?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        let changes =
            Changes { policies: 1, associations: 2, incarnation: Some(7), ..Changes::default() };
        assert_eq!(changes.to_string(), "1 policy, 2 security associations, 1 new incarnation");
        assert_eq!(changes.total(), 4);
        let waiting = Changes { waiting: 2, ..Changes::default() };
        assert!(waiting.is_empty());
        assert_eq!(waiting.to_string(), "2 peers waiting for new keys");
        assert_eq!(Changes::default().to_string(), "nothing");
    }
}
