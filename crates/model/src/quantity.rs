//! Numbers with units as people type them.

use std::time::Duration;

/// A duration in Go's notation: `10s`, `1m30s`, `500ms`, `1.5h`, `0`. The error is one line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || {
        format!("{text:?} is not a duration: use a number with a unit, such as 500ms, 10s or 1m30s")
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total: u128 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        total = total.saturating_add(decimal(number, scale).ok_or_else(bad)?);
        rest = tail;
    }
    // Go's durations are 64 bits with a sign.
    match i64::try_from(total) {
        Ok(_) if text.is_empty() => Err(bad()),
        Ok(nanos) => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Err(_) => Err(format!("{text:?} is too long a duration")),
    }
}

/// A decimal number times `scale`, cut off after the unit place.
pub fn decimal(number: &str, scale: u64) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole) * u128::from(scale);
    let mut place = u128::from(scale);
    for digit in fraction.bytes() {
        // The error of cutting off here is below one unit for up to 9 digits of whole seconds.
        total += place * u128::from(digit - b'0') / 10;
        place /= 10;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_go_s() {
        for (text, nanos) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("1m30s", 90_000_000_000),
            ("500ms", 500_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1us", 1_000),
            ("1µs", 1_000),
            ("7ns", 7),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for bad in ["", "10", "s", "10 s", "-1s", "1x", "1.2.3s", ".s", "1s2", "99999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,24}") {
            // Only that it returns.
            let _ = duration(&text);
        }

        #[test]
        fn whole_seconds_are_exact(seconds in 0u64..9_000_000_000) {
            prop_assert_eq!(duration(&format!("{seconds}s")), Ok(Duration::from_secs(seconds)));
        }
    }
}
