//! `--filter KEY=VALUE`: values of the same key are alternatives, different keys must all match; labels too.

use std::collections::BTreeMap;

use swarm_model::Labels;

use crate::error::Error;

/// The filters of one list, by key.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Takes what was given; `known` are the keys that this list has.
    pub(crate) fn new(given: &[(String, String)], known: &[&str]) -> Result<Filters, Error> {
        let mut filters: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in given {
            if !known.contains(&key.as_str()) {
                let known = known.join(", ");
                return Err(Error::Usage(format!("unknown filter {key:?}: use one of {known}")));
            }
            filters.entry(key.clone()).or_default().push(value.clone());
        }
        Ok(Filters(filters))
    }

    /// The values of `key`.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is no filter `key`, or one of its values passes `test`.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether the labels have every `key=label` or `key=label=value` asked for.
    pub(crate) fn labels(&self, key: &str, labels: &Labels) -> bool {
        self.values(key).iter().all(|wanted| match wanted.split_once('=') {
            Some((label, value)) => labels.get(label).is_some_and(|has| has == value),
            None => labels.contains_key(wanted),
        })
    }

    /// Complains about values of `key` that are none of `allowed`.
    pub(crate) fn check(&self, key: &str, allowed: &[&str]) -> Result<(), Error> {
        match self.values(key).iter().find(|value| !allowed.contains(&value.as_str())) {
            None => Ok(()),
            Some(value) => Err(Error::Usage(format!(
                "invalid value {value:?} of filter {key:?}: use one of {}",
                allowed.join(", ")
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Filters;
    use swarm_model::Labels;

    fn filters(given: &[(&str, &str)]) -> Filters {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Filters::new(&given, &["name", "label"]).unwrap()
    }

    #[test]
    fn values_of_a_key_are_alternatives() {
        let both = filters(&[("name", "a"), ("name", "b")]);
        assert!(both.any("name", |v| v == "b"));
        assert!(!both.any("name", |v| v == "c"));
        assert!(both.any("id", |_| false), "no filter lets everything pass");
    }

    #[test]
    fn labels_must_all_match() {
        let labels = Labels::from([("a".into(), "1".into()), ("b".into(), String::new())]);
        assert!(filters(&[("label", "a=1"), ("label", "b")]).labels("label", &labels));
        assert!(!filters(&[("label", "a=1"), ("label", "c")]).labels("label", &labels));
        assert!(!filters(&[("label", "a=2")]).labels("label", &labels));
    }

    #[test]
    fn unknown_keys_and_values_are_errors() {
        let error = Filters::new(&[("colour".into(), "red".into())], &["id", "name"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown filter \"colour\": use one of id, name");
        assert!(filters(&[("name", "x")]).check("name", &["a", "b"]).is_err());
        assert!(filters(&[("name", "a")]).check("name", &["a", "b"]).is_ok());
    }
}
