//! `node ls`.

use serde_json::{Value, json};
use swarm_model::{Availability, FeatureLevel, Node, NodeRole, NodeState, Reachability};

use crate::args::ListArgs;
use crate::error::Error;
use crate::filter::Filters;
use crate::natural;
use crate::output::Row;

/// A node in a list.
#[derive(Debug)]
pub(crate) struct NodeRow {
    id: String,
    hostname: String,
    status: &'static str,
    availability: &'static str,
    manager_status: &'static str,
    engine_version: String,
    feature_level: FeatureLevel,
    /// It is the node that was asked.
    is_self: bool,
}

/// The rows of `node ls`; `own_id` is the id of the node that was asked.
pub(crate) fn nodes(
    mut nodes: Vec<Node>,
    list: &ListArgs,
    own_id: &str,
) -> Result<Vec<NodeRow>, Error> {
    let filters = Filters::new(&list.filter, &["id", "label", "name", "node.label", "role"])?;
    filters.check("role", &["worker", "manager"])?;
    nodes.retain(|node| matches(node, &filters));
    nodes.sort_by(|a, b| {
        natural::compare(&a.description.hostname, &b.description.hostname)
            .then_with(|| a.id.cmp(&b.id))
    });
    Ok(nodes.iter().map(|node| row(node, own_id)).collect())
}

fn matches(node: &Node, filters: &Filters) -> bool {
    let role = match node.spec.role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    };
    filters.any("id", |id| node.id.as_str().starts_with(id))
        && filters.any("name", |name| node.description.hostname.starts_with(name))
        && filters.any("role", |wanted| wanted == role)
        && filters.labels("label", &node.spec.labels)
        && filters.labels("node.label", &node.spec.labels)
}

fn row(node: &Node, own_id: &str) -> NodeRow {
    NodeRow {
        id: node.id.to_string(),
        hostname: node.description.hostname.clone(),
        status: match node.status.state {
            NodeState::Unknown => "Unknown",
            NodeState::Down => "Down",
            NodeState::Ready => "Ready",
        },
        availability: match node.spec.availability {
            Availability::Active => "Active",
            Availability::Pause => "Pause",
            Availability::Drain => "Drain",
        },
        manager_status: manager_status(node),
        engine_version: node.description.engine.engine_version.clone(),
        feature_level: node.description.engine.feature_level,
        is_self: node.id.as_str() == own_id,
    }
}

fn manager_status(node: &Node) -> &'static str {
    match &node.manager_status {
        None => "",
        Some(manager) if manager.leader => "Leader",
        Some(manager) => match manager.reachability {
            Reachability::Unknown => "Unknown",
            Reachability::Unreachable => "Unreachable",
            Reachability::Reachable => "Reachable",
        },
    }
}

impl Row for NodeRow {
    const HEADERS: &'static [&'static str] = &[
        "ID",
        "HOSTNAME",
        "STATUS",
        "AVAILABILITY",
        "MANAGER STATUS",
        "ENGINE VERSION",
        "FEATURE LEVEL",
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        let mark = if self.is_self { " *" } else { "" };
        vec![
            format!("{}{mark}", self.id),
            self.hostname.clone(),
            self.status.to_owned(),
            self.availability.to_owned(),
            self.manager_status.to_owned(),
            self.engine_version.clone(),
            self.feature_level.to_string(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "ID": self.id,
            "Hostname": self.hostname,
            "Status": self.status,
            "Availability": self.availability,
            "ManagerStatus": self.manager_status,
            "EngineVersion": self.engine_version,
            "FeatureLevel": self.feature_level,
            "Self": self.is_self,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::nodes;
    use crate::args::ListArgs;
    use crate::output::Row;
    use swarm_model::*;

    fn node(id: &str, hostname: &str, leads: Option<bool>) -> Node {
        Node {
            id: NodeId::from(id),
            meta: Meta::default(),
            spec: NodeSpec {
                role: if leads.is_some() { NodeRole::Manager } else { NodeRole::Worker },
                ..NodeSpec::default()
            },
            description: NodeDescription { hostname: hostname.into(), ..Default::default() },
            status: NodeStatus { state: NodeState::Ready, ..Default::default() },
            manager_status: leads.map(|leader| ManagerStatus {
                leader,
                reachability: Reachability::Reachable,
                addr: String::new(),
                raft_id: 1,
            }),
            ordinal: 0,
        }
    }

    #[test]
    fn sorted_by_host_name_with_the_own_node_marked() {
        let all = vec![
            node("b", "pg-10", None),
            node("a", "pg-2", Some(true)),
            node("c", "pg-3", Some(false)),
        ];
        let rows = nodes(all, &ListArgs::default(), "c").unwrap();
        let cells: Vec<_> = rows.iter().map(|row| row.cells()[..5].join("|")).collect();
        assert_eq!(
            cells,
            [
                "a|pg-2|Ready|Active|Leader",
                "c *|pg-3|Ready|Active|Reachable",
                "b|pg-10|Ready|Active|"
            ]
        );
        assert_eq!(rows[1].json()["Self"], true);
        assert_eq!(rows[0].json()["Self"], false);
    }

    #[test]
    fn filtered_by_role_and_name() {
        let filtered = |key: &str, value: &str| {
            let all = vec![node("b", "pg-10", None), node("a", "pg-2", Some(true))];
            let filter = vec![(key.to_owned(), value.to_owned())];
            let list = ListArgs { filter, ..ListArgs::default() };
            nodes(all, &list, "").map(|rows| rows.into_iter().map(|r| r.id).collect::<Vec<_>>())
        };
        assert_eq!(filtered("role", "manager").unwrap(), ["a"]);
        assert_eq!(filtered("name", "pg-1").unwrap(), ["b"]);
        assert_eq!(filtered("id", "a").unwrap(), ["a"]);
        assert!(filtered("role", "boss").is_err());
        assert!(filtered("driver", "overlay").is_err());
    }
}
