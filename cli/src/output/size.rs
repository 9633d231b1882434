//! Sizes as people read them, in go-units' words.

/// Powers of 1000 and three digits, as `image ls` shows them: `187MB`, `1.24GB`.
pub(crate) fn decimal(bytes: u64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// Powers of 1024 and four digits, as `info` shows memory: `3.836GiB`.
pub(crate) fn binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(bytes: u64, base: f64, units: &[&str], digits: usize) -> String {
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= base && unit + 1 < units.len() {
        size /= base;
        unit += 1;
    }
    format!("{}{}", significant(size, digits), units[unit])
}

/// `digits` significant digits without trailing zeros, as Go's `%.3g` prints numbers of this range.
fn significant(value: f64, digits: usize) -> String {
    let whole = format!("{}", value.trunc()).len();
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{binary, decimal};

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (5_530_000, "5.53MB"),
            (187_400_000, "187MB"),
            (1_236_000_000, "1.24GB"),
            (20_000_000, "20MB"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
        assert_eq!(binary(4_118_873_088), "3.836GiB");
        assert_eq!(binary(1 << 30), "1GiB");
    }
}
