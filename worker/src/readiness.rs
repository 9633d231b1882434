//! Whether a task whose container runs can serve yet: it is looked at until it listens, or has had its time.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use swarm_images::ImageConfig;
use swarm_model::{Assignment, Readiness};
use tokio::time::{Instant, sleep};

use crate::adapters::Overlay;

/// A listener on a port that is not expected counts after this time: the expected one may follow.
const OTHER_PORT: Duration = Duration::from_secs(1);
/// The pauses between two looks: a tenth of the container's age, within these bounds. A look takes some 30 µs: a
/// thousand tasks that start at once cost a few looks each, and then 15 % of a processor while they wait.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A task that listens sooner is not said to be waited for: that would be overtaken news.
const WORTH_A_WORD: Duration = Duration::from_millis(50);
/// More ports are not named.
const MOST_NAMED: usize = 4;

/// A task that is waited for.
#[derive(Debug, Clone)]
pub(crate) struct Waiting {
    /// Never empty.
    ports: BTreeSet<u16>,
    timeout: Duration,
    /// When the container was started.
    started_at: SystemTime,
    /// The container's age when it was first seen to listen on other ports alone.
    other_since: Option<Duration>,
}

/// What is to be done after a look.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Look again after this time.
    Wait(Duration),
    /// It counts as running.
    Ready(Readiness),
}

/// The TCP ports that a task is expected to listen on.
fn expected_ports(task: &Assignment, config: &ImageConfig) -> BTreeSet<u16> {
    let (mut ranges, mut bad) = (Vec::new(), None);
    for exposed in &config.exposed_ports {
        match swarm_images::tcp_ports(exposed) {
            Ok(range) => ranges.extend(range),
            Err(e) => bad = bad.or(Some(e)),
        }
    }
    if let Some(bad) = bad {
        tracing::warn!("task {}: its image exposes {bad}: ignored", task.name());
    }
    each_once(ranges)
}

/// The ports of ranges that may overlap. Each is looked at once, however often an image names it.
fn each_once(mut ranges: Vec<RangeInclusive<u16>>) -> BTreeSet<u16> {
    ranges.sort_unstable_by_key(|range| *range.start());
    let mut ports = BTreeSet::new();
    for range in ranges {
        let first = ports
            .last()
            .map_or(*range.start(), |last: &u16| last.saturating_add(1).max(*range.start()));
        ports.extend(first..=*range.end());
    }
    ports
}

impl Waiting {
    /// None if there is nothing to wait for.
    pub(crate) fn of(
        task: &Assignment,
        config: &ImageConfig,
        started_at: SystemTime,
    ) -> Option<Waiting> {
        let timeout = Duration::from_nanos(task.ready_timeout);
        if timeout.is_zero() {
            return None;
        }
        let ports = expected_ports(task, config);
        (!ports.is_empty()).then_some(Waiting { ports, timeout, started_at, other_since: None })
    }

    /// What the task's status says meanwhile.
    pub(crate) fn message(&self) -> String {
        format!("waiting for port {}", self.ports())
    }

    /// What the status of a task says that waited in vain.
    fn silent_message(&self) -> String {
        format!("started; nothing listens on port {}", self.ports())
    }

    /// `80`, `80 or 443`, `80, 443 or 8080`.
    fn ports(&self) -> String {
        let named = self.ports.iter().take(MOST_NAMED).map(u16::to_string);
        let more = self.ports.len().saturating_sub(MOST_NAMED);
        let mut words: Vec<String> = named.collect();
        words.extend((more > 0).then(|| format!("{more} others")));
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        }
    }

    /// Judges what listens now that the container is of this age.
    fn judge(&mut self, age: Duration, listeners: &[SocketAddr]) -> Verdict {
        let reachable = listeners.iter().filter(|listener| !is_loopback(listener.ip()));
        let ports: BTreeSet<u16> = reachable.map(SocketAddr::port).collect();
        if !ports.is_disjoint(&self.ports) {
            return Verdict::Ready(Readiness::Listening);
        }
        self.other_since = self.other_since.filter(|_| !ports.is_empty());
        let mut left = self.timeout.saturating_sub(age);
        if !ports.is_empty() {
            let since = *self.other_since.get_or_insert(age);
            left = left.min((since + OTHER_PORT).saturating_sub(age));
        }
        if left.is_zero() {
            let silent = ports.is_empty();
            return Verdict::Ready(if silent { Readiness::Silent } else { Readiness::Listening });
        }
        Verdict::Wait((age / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE).min(left))
    }

    /// Looks until the task counts as running; gives why it does, in words as well. `say` is called once if that takes a
    /// while.
    pub(crate) async fn until_ready(
        mut self,
        overlay: &dyn Overlay,
        task: &Assignment,
        say: impl Fn(),
    ) -> (Readiness, String) {
        match self.look(overlay, task, say).await {
            Ok(Readiness::Silent) => (Readiness::Silent, self.silent_message()),
            Ok(readiness) => (readiness, "started".to_owned()),
            Err(e) => {
                tracing::warn!("cannot tell whether task {} listens: {e}", task.name());
                let message = format!("started; cannot tell whether it listens: {e}");
                (Readiness::Unchecked, message)
            }
        }
    }

    async fn look(
        &mut self,
        overlay: &dyn Overlay,
        task: &Assignment,
        say: impl Fn(),
    ) -> Result<Readiness, swarm_overlay::Error> {
        let mut listeners = overlay.listeners(task.id.as_str()).await?;
        // The wall clock bridges restarts of swarmd, and is not asked again: it may be set.
        let (first_age, first) = (self.started_at.elapsed().unwrap_or_default(), Instant::now());
        let mut said = false;
        loop {
            let age = first_age + first.elapsed();
            match self.judge(age, &listeners.now()?) {
                Verdict::Ready(readiness) => return Ok(readiness),
                Verdict::Wait(pause) => {
                    if !said && age >= WORTH_A_WORD {
                        said = true;
                        say();
                    }
                    sleep(pause).await; // nothing tells when a socket begins to listen
                }
            }
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests;
