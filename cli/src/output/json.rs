//! JSON documents: read into types, and indented by four spaces as Docker prints them.

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::error::Error;

/// Reads one document.
pub(crate) fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document { what, source })
}

/// Reads several.
pub(crate) fn parse_all<T: DeserializeOwned>(
    what: &'static str,
    documents: &[impl AsRef<[u8]>],
) -> Result<Vec<T>, Error> {
    documents.iter().map(|document| parse(what, document.as_ref())).collect()
}

/// An array of the documents, indented. The order of fields and the spelling of numbers stay as they came.
pub(crate) fn array(what: &'static str, documents: &[impl AsRef<[u8]>]) -> Result<String, Error> {
    let mut joined = String::from("[");
    for (index, document) in documents.iter().enumerate() {
        let document = document.as_ref();
        parse::<IgnoredAny>(what, document)?;
        if index > 0 {
            joined.push(',');
        }
        joined += &String::from_utf8_lossy(document);
    }
    joined.push(']');
    Ok(indent(&joined))
}

/// Indents a valid JSON text.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut characters = json.chars().filter_outside_strings();
    while let Some((c, in_string)) = characters.next() {
        if in_string {
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some((close @ ('}' | ']'), false)) = characters.peek() {
                    out.push(close);
                    characters.next();
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth -= 1;
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("    ", depth));
}

/// The characters of a JSON text without white space between tokens, each with whether it is in a string.
struct Tokens<I: Iterator<Item = char>> {
    characters: I,
    in_string: bool,
    escaped: bool,
    peeked: Option<(char, bool)>,
}

trait FilterOutsideStrings: Iterator<Item = char> + Sized {
    fn filter_outside_strings(self) -> Tokens<Self> {
        Tokens { characters: self, in_string: false, escaped: false, peeked: None }
    }
}

impl<I: Iterator<Item = char>> FilterOutsideStrings for I {}

impl<I: Iterator<Item = char>> Tokens<I> {
    fn peek(&mut self) -> Option<(char, bool)> {
        if self.peeked.is_none() {
            self.peeked = self.read();
        }
        self.peeked
    }

    fn read(&mut self) -> Option<(char, bool)> {
        loop {
            let c = self.characters.next()?;
            if self.in_string {
                match c {
                    _ if self.escaped => self.escaped = false,
                    '\\' => self.escaped = true,
                    '"' => self.in_string = false,
                    _ => {}
                }
                return Some((c, true));
            }
            if c == '"' {
                self.in_string = true;
                return Some((c, true));
            }
            if !c.is_ascii_whitespace() {
                return Some((c, false));
            }
        }
    }
}

impl<I: Iterator<Item = char>> Iterator for Tokens<I> {
    type Item = (char, bool);

    fn next(&mut self) -> Option<(char, bool)> {
        self.peeked.take().or_else(|| self.read())
    }
}

#[cfg(test)]
mod tests {
    use super::{array, indent};
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn indented_as_docker_does() {
        let text =
            array("x", &[br#"{"b":1.50,"a":{},"c":[ ],"d":["x, {y}: \"z\\",null]}"#]).unwrap();
        let wanted = "[\n    {\n        \"b\": 1.50,\n        \"a\": {},\n        \"c\": [],\n        \"d\": [\n            \"x, {y}: \\\"z\\\\\",\n            null\n        ]\n    }\n]";
        assert_eq!(text, wanted);
        assert_eq!(array("x", &[] as &[&[u8]]).unwrap(), "[]");
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        assert!(array("node", &[b"{"]).unwrap_err().to_string().contains("node document"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_value_stays_the_same(value in any_json()) {
            let text = indent(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
    }
}
