//! Times as Docker's lists show them: how long ago, roughly.

use std::time::Duration;

use swarm_model::Timestamp;
use time::OffsetDateTime;
use time::macros::format_description;

/// The present moment.
pub(crate) fn now() -> Timestamp {
    let nanos = OffsetDateTime::now_utc().unix_timestamp_nanos();
    Timestamp(i64::try_from(nanos).unwrap_or(i64::MAX))
}

/// `3 seconds`, `About a minute`, `2 days`: the words of go-units' `HumanDuration`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = (duration.as_secs_f64() / 3600.0).round() as u64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// `3 seconds ago`.
pub(crate) fn ago(moment: Timestamp, now: Timestamp) -> String {
    format!("{} ago", human(now.since(moment)))
}

/// `2024-05-01 12:00:00.123456789 +0000 UTC`, as Docker's JSON lists spell times.
pub(crate) fn go_format(moment: Timestamp) -> String {
    let shape = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]");
    let nanos = i128::from(moment.0);
    let Some(text) = OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|moment| moment.format(&shape).ok())
    else {
        return String::new();
    };
    let fraction = moment.0.rem_euclid(1_000_000_000);
    if fraction == 0 {
        return format!("{text} +0000 UTC");
    }
    let fraction = format!("{fraction:09}");
    format!("{text}.{} +0000 UTC", fraction.trim_end_matches('0'))
}

/// `2024-05-01T12:00:00.123456789Z`, always with nine decimals, as `logs --timestamps` prints.
pub(crate) fn log_stamp(moment: Timestamp) -> String {
    let shape =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(moment.0))
        .ok()
        .and_then(|moment| moment.format(&shape).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{go_format, human, log_stamp};
    use std::time::Duration;
    use swarm_model::Timestamp;

    #[test]
    fn durations_read_as_docker_s() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (2 * HOUR, "2 hours"),
            (47 * HOUR, "47 hours"),
            (2 * DAY, "2 days"),
            (14 * DAY, "2 weeks"),
            (60 * DAY, "2 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn moments_read_as_go_s() {
        let moment = Timestamp(1_714_564_800_123_000_000);
        assert_eq!(go_format(moment), "2024-05-01 12:00:00.123 +0000 UTC");
        assert_eq!(go_format(Timestamp(0)), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(log_stamp(moment), "2024-05-01T12:00:00.123000000Z");
    }
}
