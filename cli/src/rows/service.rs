//! `service ls`.

use serde::Deserialize;
use serde_json::{Value, json};
use swarm_model::Service;

use crate::args::ListArgs;
use crate::error::Error;
use crate::filter::Filters;
use crate::natural;
use crate::output::{Row, short};

/// The mode of every service so far.
const MODE: &str = "replicated";

/// A service and how many of its tasks run.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListedService {
    #[serde(flatten)]
    service: Service,
    service_status: ServiceStatus,
}

/// How many tasks run, of how many that should.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceStatus {
    running_tasks: u64,
    desired_tasks: u64,
}

/// A service in a list.
#[derive(Debug)]
pub(crate) struct ServiceRow {
    id: String,
    name: String,
    replicas: String,
    image: String,
}

/// The rows of `service ls`.
pub(crate) fn services(
    mut services: Vec<ListedService>,
    list: &ListArgs,
) -> Result<Vec<ServiceRow>, Error> {
    let filters = Filters::new(&list.filter, &["id", "label", "mode", "name"])?;
    filters.check("mode", &[MODE])?;
    services.retain(|ListedService { service, .. }| {
        filters.any("id", |id| service.id.as_str().starts_with(id))
            && filters.any("name", |name| service.spec.name.starts_with(name))
            && filters.labels("label", &service.spec.labels)
    });
    services.sort_by(|a, b| natural::compare(&a.service.spec.name, &b.service.spec.name));
    Ok(services.iter().map(|listed| row(listed, list.no_trunc)).collect())
}

fn row(listed: &ListedService, no_trunc: bool) -> ServiceRow {
    let ServiceStatus { running_tasks, desired_tasks } = listed.service_status;
    let image = &listed.service.spec.task_template.container_spec.image;
    ServiceRow {
        id: short(listed.service.id.as_str(), no_trunc),
        name: listed.service.spec.name.clone(),
        replicas: format!("{running_tasks}/{desired_tasks}"),
        image: shown_image(image, no_trunc),
    }
}

/// An image without the digest it was pinned to.
pub(super) fn shown_image(image: &str, no_trunc: bool) -> String {
    match image.split_once('@') {
        Some((tagged, _)) if !no_trunc => tagged.to_owned(),
        _ => image.to_owned(),
    }
}

impl Row for ServiceRow {
    const HEADERS: &'static [&'static str] = &["ID", "NAME", "MODE", "REPLICAS", "IMAGE"];

    fn id(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<String> {
        let cells = [&self.id, &self.name, MODE, &self.replicas, &self.image];
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    fn json(&self) -> Value {
        json!({
            "ID": self.id,
            "Name": self.name,
            "Mode": MODE,
            "Replicas": self.replicas,
            "Image": self.image,
            "Ports": "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{ListedService, services};
    use crate::args::ListArgs;
    use crate::output::Row;
    use serde_json::json;
    use swarm_model::*;

    fn listed(name: &str) -> ListedService {
        let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
        spec.task_template.container_spec.image = "host:5000/nginx:1@sha256:abc".into();
        let service = Service {
            id: ServiceId::from(format!("{name}-0123456789abcdef")),
            meta: Meta::default(),
            spec,
            previous_spec: None,
            endpoint: Endpoint::default(),
            update_status: None,
            pending_delete: false,
            silent: false,
        };
        let mut value = serde_json::to_value(service).unwrap();
        value["ServiceStatus"] = json!({"RunningTasks": 2, "DesiredTasks": 3});
        serde_json::from_slice(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn rows_are_sorted_and_short() {
        let rows = services(vec![listed("web10"), listed("web9")], &ListArgs::default()).unwrap();
        let cells: Vec<_> = rows.iter().map(|row| row.cells().join("|")).collect();
        assert_eq!(
            cells,
            [
                "web9-0123456|web9|replicated|2/3|host:5000/nginx:1",
                "web10-012345|web10|replicated|2/3|host:5000/nginx:1"
            ]
        );
        let list = ListArgs { no_trunc: true, ..ListArgs::default() };
        let rows = services(vec![listed("web")], &list).unwrap();
        assert_eq!(rows[0].json()["Image"], "host:5000/nginx:1@sha256:abc");
        assert_eq!(rows[0].json()["ID"], "web-0123456789abcdef");
    }
}
