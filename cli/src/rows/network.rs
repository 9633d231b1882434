//! `network ls`.

use serde::Deserialize;
use serde_json::{Value, json};
use swarm_model::{Labels, Timestamp};

use super::label_text;
use crate::args::ListArgs;
use crate::error::Error;
use crate::filter::Filters;
use crate::natural;
use crate::output::{Row, short, time};

/// Of Docker's `network inspect`, what a list shows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Network {
    id: String,
    name: String,
    created: Timestamp,
    driver: String,
    scope: String,
    #[serde(default)]
    internal: bool,
    #[serde(default, rename = "EnableIPv6")]
    ipv6: bool,
    #[serde(default)]
    labels: Option<Labels>,
}

/// A network in a list.
#[derive(Debug)]
pub(crate) struct NetworkRow {
    id: String,
    network: Network,
}

/// The rows of `network ls`.
pub(crate) fn networks(
    mut networks: Vec<Network>,
    list: &ListArgs,
) -> Result<Vec<NetworkRow>, Error> {
    let filters = Filters::new(&list.filter, &["driver", "id", "label", "name", "scope"])?;
    networks.retain(|network| {
        let none = Labels::new();
        filters.any("driver", |driver| network.driver == driver)
            && filters.any("id", |id| network.id.starts_with(id))
            && filters.any("name", |name| network.name.contains(name))
            && filters.any("scope", |scope| network.scope == scope)
            && filters.labels("label", network.labels.as_ref().unwrap_or(&none))
    });
    networks.sort_by(|a, b| natural::compare(&a.name, &b.name).then_with(|| a.id.cmp(&b.id)));
    let rows = networks
        .into_iter()
        .map(|network| NetworkRow { id: short(&network.id, list.no_trunc), network });
    Ok(rows.collect())
}

impl Row for NetworkRow {
    const HEADERS: &'static [&'static str] = &["NETWORK ID", "NAME", "DRIVER", "SCOPE"];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        let network = &self.network;
        vec![self.id.clone(), network.name.clone(), network.driver.clone(), network.scope.clone()]
    }

    /// All are texts, as Docker has it.
    fn json(&self) -> Value {
        let network = &self.network;
        json!({
            "ID": self.id,
            "Name": network.name,
            "Driver": network.driver,
            "Scope": network.scope,
            "Internal": network.internal.to_string(),
            "IPv6": network.ipv6.to_string(),
            "Labels": network.labels.as_ref().map(label_text).unwrap_or_default(),
            "CreatedAt": time::go_format(network.created),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, networks};
    use crate::args::ListArgs;
    use crate::output::Row;
    use serde_json::json;

    fn network(name: &str, label: &str) -> Network {
        serde_json::from_value(json!({
            "Id": format!("id-of-{name}-that-is-long"), "Name": name, "Created": "2024-05-01T12:00:00Z",
            "Driver": "overlay", "Scope": "swarm", "Internal": true, "Labels": { label: "1" }
        }))
        .unwrap()
    }

    fn names(filter: &[(&str, &str)]) -> Vec<String> {
        let filter = filter.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let all = vec![network("net10", "a"), network("net2", "b"), network("back", "a")];
        let rows = networks(all, &ListArgs { filter, ..ListArgs::default() }).unwrap();
        rows.into_iter().map(|row| row.network.name).collect()
    }

    #[test]
    fn sorted_and_filtered() {
        assert_eq!(names(&[]), ["back", "net2", "net10"]);
        assert_eq!(names(&[("name", "et")]), ["net2", "net10"]);
        assert_eq!(names(&[("label", "a"), ("name", "net")]), ["net10"]);
        assert_eq!(names(&[("driver", "bridge")]), [""; 0]);
    }

    #[test]
    fn json_has_docker_s_fields() {
        let rows = networks(vec![network("net", "a")], &ListArgs::default()).unwrap();
        assert_eq!(
            rows[0].json(),
            json!({"ID": "id-of-net-th", "Name": "net", "Driver": "overlay", "Scope": "swarm", "Internal": "true",
                   "IPv6": "false", "Labels": "a=1", "CreatedAt": "2024-05-01 12:00:00 +0000 UTC"})
        );
    }
}
