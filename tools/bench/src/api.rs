//! The connection to `swarmd` and the few calls that are measured.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use swarm_proto::control::control_client::ControlClient;
use swarm_proto::control::{
    Changed, Document, ListTasksRequest, Reference, ScaleServiceRequest, WatchServiceRequest,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint, Uri};

/// No call that is measured takes anywhere near that long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client with a connection of its own.
#[derive(Clone)]
pub(crate) struct Api(ControlClient<Channel>);

impl Api {
    /// Connects to the socket of a manager.
    pub(crate) async fn connect(socket: &Path) -> Result<Api> {
        let path: PathBuf = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        let channel = Endpoint::from_static("http://swarmd")
            .connect_with_connector(connector)
            .await
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Api(ControlClient::new(channel)))
    }

    pub(crate) async fn create_service(&mut self, spec: &Value) -> Result<Changed> {
        let request = timely(Document { json: spec.to_string().into() });
        let created = self.0.create_service(request).await;
        Ok(created.context("cannot create a service")?.into_inner())
    }

    pub(crate) async fn remove_service(&mut self, id: &str) -> Result<()> {
        let removed = self.0.remove_service(timely(Reference { name: id.to_owned() })).await;
        removed.with_context(|| format!("cannot remove service {id}")).map(drop)
    }

    /// Scales and waits until that is in force on every node.
    pub(crate) async fn scale_until_in_force(&mut self, id: &str, replicas: u64) -> Result<()> {
        let request = timely(ScaleServiceRequest { name: id.to_owned(), replicas });
        let scaled = self.0.scale_service(request).await.context("cannot scale")?.into_inner();
        self.wait_in_force(id, scaled.revision).await
    }

    pub(crate) async fn create_network(&mut self, name: &str, subnet: &str) -> Result<()> {
        let config = json!([{ "Subnet": subnet }]);
        let spec = json!({ "Name": name, "Driver": "overlay", "IPAM": { "Config": config } });
        let created =
            self.0.create_network(timely(Document { json: spec.to_string().into() })).await;
        created.with_context(|| format!("cannot create network {name}")).map(drop)
    }

    /// The id of the service of this name.
    pub(crate) async fn service_id(&mut self, name: &str) -> Result<String> {
        let found = self.0.inspect_service(timely(Reference { name: name.to_owned() })).await?;
        let service: Value = serde_json::from_slice(&found.into_inner().json)?;
        service["ID"]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("service {name} has no id"))
    }

    /// Waits until `revision` of a service is in force on every node.
    pub(crate) async fn wait_in_force(&mut self, id: &str, revision: u64) -> Result<()> {
        self.wait_in_force_within(id, revision, TIMEOUT).await
    }

    /// [`Api::wait_in_force`] with more patience.
    pub(crate) async fn wait_in_force_within(
        &mut self,
        id: &str,
        revision: u64,
        patience: Duration,
    ) -> Result<()> {
        let mut request = Request::new(WatchServiceRequest { service: id.to_owned(), revision });
        request.set_timeout(patience);
        let mut stream = self.0.watch_service(request).await?.into_inner();
        while let Some(progress) = stream.message().await? {
            if progress.converged {
                return Ok(());
            }
            if !progress.failure.is_empty() {
                bail!("service {id}: {}", progress.failure);
            }
        }
        bail!("swarmd stopped to tell how far service {id} is")
    }

    /// When the newest task of a service reported that it runs, by the clock of its node.
    pub(crate) async fn newest_running(&mut self, id: &str) -> Result<OffsetDateTime> {
        let request = ListTasksRequest { services: vec![id.to_owned()], nodes: vec![] };
        let tasks = self.0.list_tasks(timely(request)).await?.into_inner();
        let mut newest = None;
        for json in tasks.json {
            let task: Value = serde_json::from_slice(&json).context("a task is no JSON")?;
            if task["Status"]["State"] != "running" {
                continue;
            }
            let text = task["Status"]["Timestamp"].as_str().context("a task has no timestamp")?;
            newest = newest.max(Some(OffsetDateTime::parse(text, &Rfc3339)?));
        }
        newest.with_context(|| format!("no task of service {id} runs"))
    }
}

fn timely<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

/// A service of the sample image.
pub(crate) fn service_spec(name: &str, replicas: u64, network: Option<&str>) -> Value {
    let networks: Vec<Value> = network.iter().map(|target| json!({ "Target": target })).collect();
    json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": "whoami" }, "Networks": networks },
        "Mode": { "Replicated": { "Replicas": replicas } },
    })
}
