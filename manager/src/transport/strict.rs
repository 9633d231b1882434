//! Specs as clients send them. A field that is not known here is refused by name, since its sender expects it to be
//! honoured: a `Mode` of `Global` must not become one replica. The model's own types skip such fields, because what is
//! stored and sent between nodes may be newer than its reader, so being strict is a matter of how they are read.

use serde::de::DeserializeOwned;
use serde_ignored::Path;
use tonic::Status;

/// Reads a spec; `what` is whose.
///
/// # Errors
/// `invalid argument` with the path of every field that is not known, or what is malformed.
pub(super) fn spec<T: DeserializeOwned>(json: &[u8], what: &str) -> Result<T, Status> {
    let mut unknown = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = serde_ignored::deserialize(&mut reader, |path| unknown.push(spelled(&path)))
        .and_then(|spec| reader.end().map(|()| spec));
    let spec = read.map_err(|e| Status::invalid_argument(format!("{what} spec: {e}")))?;
    match unknown.as_slice() {
        [] => Ok(spec),
        [field] => Err(Status::invalid_argument(format!("{what} spec: {field} is not supported"))),
        fields => {
            let fields = fields.join(", ");
            Err(Status::invalid_argument(format!("{what} spec: {fields} are not supported")))
        }
    }
}

/// `TaskTemplate.Networks[0].DriverOpts`
fn spelled(path: &Path) -> String {
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", spelled(parent)),
        Path::Map { parent, key } => match spelled(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => spelled(parent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use swarm_model::{
        IpamConfig, NetworkAttachmentConfig, NetworkSpec, RestartCondition, ServiceMode,
        ServiceSpec,
    };

    fn service(document: &Value) -> Result<ServiceSpec, String> {
        spec(document.to_string().as_bytes(), "service").map_err(|e| e.message().to_owned())
    }

    fn network(document: &Value) -> Result<NetworkSpec, String> {
        spec(document.to_string().as_bytes(), "network").map_err(|e| e.message().to_owned())
    }

    #[test]
    fn what_is_not_honoured_is_named_with_its_path() {
        for (document, refused) in [
            (json!({"Mode": {"Global": {}}}), "service spec: Mode.Global is not supported"),
            (
                json!({"Name": "web", "UpdateConfig": null}),
                "service spec: UpdateConfig is not supported",
            ),
            (
                json!({"TaskTemplate": {"ContainerSpec": {"Image": "x", "Secrets": []}}}),
                "service spec: TaskTemplate.ContainerSpec.Secrets is not supported",
            ),
            (
                json!({"TaskTemplate": {"Networks": [{"Target": "a"}, {"Target": "b", "DriverOpts": {}}]}}),
                "service spec: TaskTemplate.Networks[1].DriverOpts is not supported",
            ),
            (
                json!({"EndpointSpec": {"Ports": []}, "mode": {}}),
                "service spec: EndpointSpec.Ports, mode are not supported",
            ),
            (
                json!({"TaskTemplate": {"Resources": {"Limits": {"Pids": 5}, "Reservations": {}}}}),
                "service spec: TaskTemplate.Resources.Limits.Pids, TaskTemplate.Resources.Reservations are not supported",
            ),
        ] {
            assert_eq!(service(&document), Err(refused.to_owned()));
        }
        for (document, refused) in [
            (json!({"Attachable": true}), "network spec: Attachable is not supported"),
            (json!({"IPAM": {"Options": {}}}), "network spec: IPAM.Options is not supported"),
            (
                json!({"IPAM": {"Config": [{"AuxiliaryAddresses": {}}]}}),
                "network spec: IPAM.Config[0].AuxiliaryAddresses is not supported",
            ),
        ] {
            assert_eq!(network(&document), Err(refused.to_owned()));
        }
    }

    #[test]
    fn what_is_malformed_is_told() {
        let told = service(&json!({"Mode": {"Replicated": {"Replicas": "two"}}})).unwrap_err();
        assert!(told.starts_with("service spec: invalid type: string \"two\""), "{told}");
        let told = spec::<ServiceSpec>(b"{} {}", "service").unwrap_err();
        assert!(told.message().contains("trailing"), "{told}");
        let told = spec::<ServiceSpec>(br#"{"Name": "a", "Name": "b"}"#, "service").unwrap_err();
        assert!(told.message().contains("duplicate field"), "{told}");
    }

    /// A spec in which every field is there.
    fn whole_service() -> Value {
        let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
        spec.labels.insert("a".into(), "b".into());
        spec.mode = ServiceMode::replicated(3);
        let task = &mut spec.task_template;
        task.restart_policy.condition = RestartCondition::OnFailure;
        task.resources.limits.nano_cpus = 1;
        task.networks =
            vec![NetworkAttachmentConfig { target: "n".into(), aliases: vec!["x".into()] }];
        let container = &mut task.container_spec;
        container.image = "nginx".into();
        container.labels.insert("c".into(), "d".into());
        (container.dir, container.user) = ("/".into(), "0".into());
        container.command = vec!["a".into()];
        container.args = vec!["b".into()];
        container.env = vec!["A=1".into()];
        container.stop_grace_period = Some(1);
        serde_json::to_value(spec).unwrap()
    }

    fn whole_network() -> Value {
        let mut spec = NetworkSpec { name: "net".into(), ..NetworkSpec::default() };
        spec.labels.insert("a".into(), "b".into());
        spec.options.insert("c".into(), "d".into());
        spec.ipam.config = vec![IpamConfig {
            subnet: Some("10.9.0.0/24".parse().unwrap()),
            ip_range: Some("10.9.0.0/25".parse().unwrap()),
            gateway: Some("10.9.0.1".parse().unwrap()),
        }];
        serde_json::to_value(spec).unwrap()
    }

    /// Where the objects of a document are that have fields; in the others the user chooses the keys.
    fn objects(value: &Value, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        match value {
            Value::Object(fields) => {
                found.push(path.to_owned());
                for (key, field) in fields {
                    if key != "Labels" && key != "Options" {
                        found.extend(objects(field, &format!("{path}/{key}")));
                    }
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    found.extend(objects(item, &format!("{path}/{at}")));
                }
            }
            _ => {}
        }
        found
    }

    proptest! {
        /// Whatever a spec has is taken; whatever is added to it, wherever, is refused by that name.
        #[test]
        fn anything_more_is_refused(at in any::<prop::sample::Index>(), name in "[A-Z][a-zA-Z]{8,12}") {
            for (whole, what) in [(whole_service(), "service"), (whole_network(), "network")] {
                let read = |document: &Value| match what {
                    "service" => service(document).map(|spec| serde_json::to_value(spec).unwrap()),
                    _ => network(document).map(|spec| serde_json::to_value(spec).unwrap()),
                };
                prop_assert_eq!(read(&whole), Ok(whole.clone()));
                let places = objects(&whole, "");
                let place = &places[at.index(places.len())];
                let mut more = whole.clone();
                more.pointer_mut(place).unwrap()[&name] = json!(1);
                let refused = read(&more).unwrap_err();
                prop_assert!(refused.ends_with(&format!("{name} is not supported")), "{}", refused);
            }
        }
    }
}
