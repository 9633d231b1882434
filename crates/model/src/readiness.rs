//! When a task counts as running: once it can serve, and at the latest after a while.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ServiceSpec, quantity};

/// The label of a service that says how long a task may take until it listens, as a duration; `0` is not to wait.
pub const READY_TIMEOUT_LABEL: &str = "swarm.ready-timeout";
/// How long that is without the label.
const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a task whose process runs can serve, as its node sees it. Only additions are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Readiness {
    /// It listens nowhere yet: the task is starting.
    Waiting,
    /// It listens on a port that others can reach.
    Listening,
    /// It listened nowhere for as long as it may take: the task counts as running all the same.
    Silent,
    /// There was nothing to wait for.
    Unchecked,
}

impl ServiceSpec {
    /// How long a task may take until it listens; the error says what is wrong with the label. A label of the container
    /// is as good: it is where compose files put theirs.
    pub fn ready_timeout(&self) -> Result<Duration, String> {
        let labels = [&self.labels, &self.task_template.container_spec.labels];
        match labels.iter().find_map(|labels| labels.get(READY_TIMEOUT_LABEL)) {
            Some(text) => quantity::duration(text),
            None => Ok(READY_TIMEOUT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(service: Option<&str>, container: Option<&str>) -> ServiceSpec {
        let mut spec = ServiceSpec::default();
        let label = |text: &str| (READY_TIMEOUT_LABEL.to_owned(), text.to_owned());
        spec.labels.extend(service.map(label));
        spec.task_template.container_spec.labels.extend(container.map(label));
        spec
    }

    #[test]
    fn the_service_s_label_counts_before_the_container_s() {
        let seconds = |service, container| {
            spec(service, container).ready_timeout().map(|timeout| timeout.as_secs())
        };
        assert_eq!(seconds(None, None), Ok(10));
        assert_eq!(seconds(None, Some("30s")), Ok(30));
        assert_eq!(seconds(Some("1m30s"), Some("30s")), Ok(90));
        assert_eq!(seconds(Some("0"), None), Ok(0));
        assert!(seconds(Some("soon"), Some("30s")).is_err());
    }
}
