//! How a manager's Raft is set up.

use std::{path::PathBuf, sync::Arc, time::Duration};

use openraft::{Config, SnapshotPolicy};

use swarm_seal::SealKey;

use crate::{
    disk::{Disk, Sled},
    error::StartError,
};

/// The largest command that is accepted, in bytes.
pub const MAX_COMMAND: usize = 1536 * 1024;

/// The options of [`crate::Raft::start`]. All managers of a cluster should have the same times.
#[derive(Clone, Debug)]
pub struct Options {
    /// This manager's Raft id: unique in the cluster, for all time.
    pub id: u64,
    /// Where log and snapshot are kept; made if missing. Used by this manager alone.
    pub dir: PathBuf,
    /// What log and snapshot are encrypted with.
    pub key: SealKey,
    /// What the log is kept on.
    pub disk: Arc<dyn Disk>,
    /// How often the leader shows that it is there.
    pub heartbeat: Duration,
    /// The earliest and the latest time without a leader after which a manager stands for election.
    pub election_timeout: (Duration, Duration),
    /// After how many entries a snapshot is taken and the log before it deleted.
    pub snapshot_every: u64,
    /// How many entries before the snapshot are kept, for managers that are slightly behind.
    pub keep_entries: u64,
    /// How long a proposal, a read barrier or a transfer of leadership may take.
    pub timeout: Duration,
    /// How long a new manager may take to come up to date.
    pub catch_up: Duration,
}

impl Options {
    /// Options with the default times and sizes.
    pub fn new(id: u64, dir: impl Into<PathBuf>, key: SealKey) -> Self {
        Self {
            id,
            dir: dir.into(),
            key,
            disk: Arc::new(Sled),
            heartbeat: Duration::from_millis(250),
            election_timeout: (Duration::from_millis(1200), Duration::from_millis(1800)),
            snapshot_every: 10_000,
            keep_entries: 1_000,
            timeout: Duration::from_secs(5),
            catch_up: Duration::from_secs(60),
        }
    }

    /// openraft's settings.
    ///
    /// openraft waits for the leader's lease (its `election_timeout_max`) and *then* for a random
    /// `election_timeout_min..election_timeout_max`; ours are the sums.
    pub(crate) fn config(&self) -> Result<Config, StartError> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (earliest, latest) = (millis(self.election_timeout.0), millis(self.election_timeout.1));
        let lease = latest / 2;
        if self.snapshot_every == 0 {
            return Err(StartError::Options("snapshot_every is 0".to_owned()));
        }
        if earliest <= lease || earliest >= latest {
            let text =
                format!("election time-out {earliest}..{latest} ms is not within a factor of two");
            return Err(StartError::Options(text));
        }
        let config = Config {
            cluster_name: "swarm".to_owned(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: earliest - lease,
            election_timeout_max: lease,
            enable_pre_vote: Some(true),
            // A restarted leader asks for votes again: its state may be behind what it had applied.
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // More than a snapshot can leave behind, as openraft asks.
            replication_lag_threshold: self
                .snapshot_every
                .saturating_add(self.keep_entries)
                .saturating_mul(2),
            max_payload_entries: 1024,
            api_channel_size: Some(4096),
            backoff: "50ms 100ms 200ms ...1s".to_owned(),
            ..Config::default()
        };
        config.validate().map_err(|error| StartError::Options(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new(1, "dir", SealKey::new([1; 32], "a test"))
    }

    #[test]
    fn the_defaults_are_valid_and_elect_within_two_seconds() {
        let config = options().config().unwrap();
        let latest = config.election_timeout_max + config.election_timeout_max;
        assert!(latest < 2000);
        assert!(config.election_timeout_max + config.election_timeout_min >= 1000);
    }

    #[test]
    fn impossible_times_are_refused() {
        let with = |earliest, latest| Options {
            election_timeout: (Duration::from_millis(earliest), Duration::from_millis(latest)),
            ..options()
        };
        for (earliest, latest) in [(0, 0), (1000, 1000), (100, 2000), (1000, 2000)] {
            assert!(
                matches!(with(earliest, latest).config(), Err(StartError::Options(_))),
                "{earliest} {latest}"
            );
        }
        assert!(Options { snapshot_every: 0, ..options() }.config().is_err());
    }
}
