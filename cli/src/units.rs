//! Durations, sizes and counts as people type them in flags. Errors are one line, for clap.

use std::net::IpAddr;

use ipnet::IpNet;
use swarm_model::quantity::{self, decimal};

/// Nanoseconds of a duration in Go's notation: `10s`, `1m30s`, `500ms`, `1.5h`.
pub(crate) fn nanoseconds(text: &str) -> Result<u64, String> {
    let duration = quantity::duration(text)?;
    u64::try_from(duration.as_nanos()).map_err(|_| format!("{text:?} is too long a duration"))
}

/// Bytes, as `docker --memory` takes them: `64m`, `1g`, `1.5GiB`, `4096`; powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let bad =
        || format!("{text:?} is not a size: use bytes or a number with a unit, such as 64m or 1g");
    let lower = text.to_ascii_lowercase();
    let unit_at = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(unit_at);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    let size = decimal(number, 1 << shift).ok_or_else(bad)?;
    // Docker's sizes are 64 bits with a sign.
    i64::try_from(size).map(i64::unsigned_abs).map_err(|_| format!("{text:?} is too large a size"))
}

/// Billionths of a CPU: `0.5`, `2`.
pub(crate) fn nano_cpus(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a number of CPUs: use a number such as 0.5 or 2");
    let decimals = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if decimals > 9 {
        return Err(format!("{text:?} is too precise: a CPU has nine decimals"));
    }
    let nanos = decimal(text, 1_000_000_000).ok_or_else(bad)?;
    i64::try_from(nanos).map(i64::unsigned_abs).map_err(|_| format!("{text:?} are too many CPUs"))
}

/// A number of tasks.
pub(crate) fn replicas(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "the number of replicas is a whole number, 0 or more".to_owned())
}

/// `SERVICE=REPLICAS`.
pub(crate) fn scale(text: &str) -> Result<(String, u64), String> {
    let (name, count) = text.rsplit_once('=').ok_or("use SERVICE=REPLICAS, such as web=3")?;
    if name.is_empty() {
        return Err("use SERVICE=REPLICAS, such as web=3".to_owned());
    }
    Ok((name.to_owned(), replicas(count)?))
}

/// `KEY=VALUE`, or `KEY` alone with an empty value.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("use KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `NAME=VALUE`; `NAME` alone takes the value that the variable has here, or nothing if it has none.
pub(crate) fn variable(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() || text.starts_with('=') || text.contains('\0') {
        return Err("use NAME=VALUE".to_owned());
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    match std::env::var(text) {
        Ok(value) => Ok(Some(format!("{text}={value}"))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

/// A command line, split as a shell would.
pub(crate) fn shell_words(text: &str) -> Result<Words, String> {
    let words = shlex::split(text).ok_or_else(|| format!("{text:?} has an open quote"))?;
    Ok(Words(words))
}

/// The words of one flag's value; a type of its own as clap takes a `Vec` for a flag that repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

/// A subnet of the family that networks can have.
pub(crate) fn subnet(text: &str) -> Result<IpNet, String> {
    let subnet = text.parse().map_err(|_| "use a subnet such as 10.9.0.0/24".to_owned())?;
    swarm_model::ipv4_net("subnet", subnet).map(IpNet::V4).map_err(|e| e.to_string())
}

/// The address of a gateway, as [`subnet`].
pub(crate) fn gateway(text: &str) -> Result<IpAddr, String> {
    let addr = text.parse().map_err(|_| "use an address such as 10.9.0.1".to_owned())?;
    swarm_model::ipv4_addr("gateway", addr).map(IpAddr::V4).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_nanoseconds() {
        assert_eq!(nanoseconds("1m30s"), Ok(90_000_000_000));
        assert!(nanoseconds("10").is_err_and(|e| e.contains("is not a duration")));
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [
            ("4096", 4096),
            ("64m", 64 << 20),
            ("64MB", 64 << 20),
            ("1g", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("1k", 1024),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "m", "-1m", "1x", "1.2.3m", "99999999t", "1 2m"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus_are_billionths() {
        assert_eq!(nano_cpus("0.5"), Ok(500_000_000));
        assert_eq!(nano_cpus("2"), Ok(2_000_000_000));
        assert_eq!(nano_cpus(".25"), Ok(250_000_000));
        assert_eq!(nano_cpus("0.000000001"), Ok(1));
        for bad in ["", "half", "-1", "0.0000000001", "1e3", "99999999999"] {
            assert!(nano_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counts_and_pairs() {
        assert_eq!(replicas("0"), Ok(0));
        assert!(replicas("-1").is_err() && replicas("3.5").is_err() && replicas("").is_err());
        assert_eq!(scale("web=3"), Ok(("web".to_owned(), 3)));
        assert!(scale("web").is_err() && scale("=3").is_err() && scale("web=-1").is_err());
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(key_value("a"), Ok(("a".to_owned(), String::new())));
        assert!(key_value("=b").is_err());
        assert_eq!(variable("A=1=2"), Ok(Some("A=1=2".to_owned())));
        assert_eq!(variable("SWARMCTL_NO_SUCH_VARIABLE"), Ok(None));
        assert!(variable("=1").is_err());
        assert_eq!(shell_words("sh -c 'echo hi'").unwrap().0, ["sh", "-c", "echo hi"]);
        assert!(shell_words("sh 'open").is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_them_panic(text in ".{0,24}") {
            // Only that they return.
            let _ = (nanoseconds(&text), bytes(&text), nano_cpus(&text), scale(&text));
        }

        #[test]
        fn nine_decimals_are_exact(cpus in 0u64..1000, nanos in 0u64..1_000_000_000) {
            let text = format!("{cpus}.{nanos:09}");
            prop_assert_eq!(nano_cpus(&text), Ok(cpus * 1_000_000_000 + nanos));
        }
    }
}
