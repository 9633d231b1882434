//! Writing and reading the little JSON that is spoken here.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A JSON string with its quotes.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 => {
                write!(out, "\\u{:04x}", c as u32).expect("a string takes all")
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An object of values that are JSON already.
pub(crate) fn object<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let fields: Vec<String> =
        fields.into_iter().map(|(key, value)| format!("{}:{value}", string(key))).collect();
    format!("{{{}}}", fields.join(","))
}

/// An object of counts.
pub(crate) fn counts(counts: &BTreeMap<String, u64>) -> String {
    object(counts.iter().map(|(key, count)| (key.as_str(), count.to_string())))
}

/// The string field `key` of a flat object as [`object`] writes it, with no escapes in it.
pub(crate) fn string_field<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, after) = json.split_once(&format!("\"{key}\":\""))?;
    after.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped() {
        assert_eq!(string("a\"b\\\n"), "\"a\\\"b\\\\\\u000a\"");
    }

    #[test]
    fn a_field_is_found_again() {
        let json = object([("hostname", string("h1")), ("client", string("10.0.0.1:5"))]);
        assert_eq!(string_field(&json, "hostname"), Some("h1"));
        assert_eq!(string_field(&json, "client"), Some("10.0.0.1:5"));
        assert_eq!(string_field(&json, "other"), None);
    }
}
