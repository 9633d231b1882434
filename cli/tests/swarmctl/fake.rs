//! A control API on a unix socket that answers from what a test put in, and remembers what it was asked.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use swarm_proto::control::control_server::{Control, ControlServer};
use swarm_proto::control::node_server::{Node, NodeServer};
use swarm_proto::control::*;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Says to a watch how far a service is; the watch ends with it.
pub(crate) type Live = UnboundedSender<Result<Progress, Status>>;

/// What the API has, and what it was told.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) info: Value,
    pub(crate) nodes: Vec<Value>,
    pub(crate) networks: Vec<Value>,
    pub(crate) services: Vec<Value>,
    pub(crate) tasks: Vec<Value>,
    pub(crate) images: Vec<Value>,
    pub(crate) stale: String,
    pub(crate) unlock_key: String,
    /// What is said when that is changed.
    pub(crate) key_warnings: Vec<String>,
    /// What each watch in turn says; a watch too many never says anything.
    pub(crate) watches: VecDeque<Vec<Result<Progress, Status>>>,
    /// What is said to watches as a test goes on: these come first.
    pub(crate) live: VecDeque<UnboundedReceiver<Result<Progress, Status>>>,
    /// Updates to refuse as out of date.
    pub(crate) out_of_date: u32,
    pub(crate) logs: Vec<LogRecord>,
    /// Requests, as `method document`.
    pub(crate) asked: Vec<String>,
    pub(crate) loaded_bytes: usize,
    /// Sizes of terminals, as `rows x columns`.
    pub(crate) sizes: Vec<(u32, u32)>,
    /// How often it was asked for the root.
    pub(crate) looks: u64,
}

/// The running API.
pub(crate) struct Fake {
    folder: tempfile::TempDir,
    world: Arc<Mutex<World>>,
    runtime: Runtime,
}

impl Fake {
    pub(crate) fn new() -> Fake {
        let folder = tempfile::tempdir().expect("a folder");
        let world = Arc::new(Mutex::new(World::default()));
        let runtime = serve(&folder.path().join("swarmd.sock"), Api(Arc::clone(&world)));
        Fake { folder, world, runtime }
    }

    /// Breaks all connections and begins anew with the same world.
    pub(crate) fn restart(&mut self) {
        let socket = self.folder.path().join("swarmd.sock");
        std::fs::remove_file(&socket).expect("a socket to remove");
        self.runtime = serve(&socket, Api(Arc::clone(&self.world)));
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/swarmd.sock", self.folder.path().display())
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panicked with it")
    }
}

/// Serves on a socket for as long as the runtime is there.
fn serve(socket: &std::path::Path, api: Api) -> Runtime {
    let runtime = Runtime::new().expect("a runtime");
    let listener = {
        let _entered = runtime.enter();
        UnixListener::bind(socket).expect("a socket")
    };
    let server = tonic::transport::Server::builder()
        .add_service(ControlServer::new(api.clone()))
        .add_service(NodeServer::new(api))
        .serve_with_incoming(UnixListenerStream::new(listener));
    runtime.spawn(server);
    runtime
}

#[derive(Clone)]
struct Api(Arc<Mutex<World>>);

impl Api {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panicked with it")
    }

    fn list(&self, of: impl Fn(&World) -> &Vec<Value>) -> Answer<Documents> {
        let world = self.world();
        let json = of(&world).iter().map(|value| value.to_string().into()).collect();
        Ok(Response::new(Documents { json, stale: world.stale.clone() }))
    }

    fn one(&self, what: &str, name: &str, of: impl Fn(&World) -> &Vec<Value>) -> Answer<Document> {
        let world = self.world();
        let named = |value: &&Value| {
            [&value["ID"], &value["Id"], &value["Name"], &value["Spec"]["Name"]]
                .iter()
                .any(|field| *field == name)
        };
        match of(&world).iter().find(named) {
            Some(value) => Ok(Response::new(Document { json: value.to_string().into() })),
            None => Err(Status::not_found(format!("{what} {name} not found"))),
        }
    }

    fn changed(&self, what: String, id: &str) -> Answer<Changed> {
        self.world().asked.push(what);
        Ok(Response::new(Changed { id: id.to_owned(), revision: 7, warnings: vec![] }))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tonic::async_trait]
impl Node for Api {
    async fn init(&self, request: Request<InitRequest>) -> Answer<InitResponse> {
        let request = request.into_inner();
        self.world().asked.push(format!("init {}", request.advertise_addr));
        let unlock_key = if request.autolock { "SWMKEY-1-k" } else { "" };
        Ok(Response::new(InitResponse {
            node_id: "n1".into(),
            worker_token: "SWMTKN-1-w".into(),
            manager_token: "SWMTKN-1-m".into(),
            addr: "192.0.2.1:2377".into(),
            unlock_key: unlock_key.into(),
        }))
    }

    async fn unlock(&self, request: Request<UnlockRequest>) -> Answer<Empty> {
        match request.into_inner().unlock_key.as_str() {
            "SWMKEY-1-k" => Ok(Response::new(Empty {})),
            _ => Err(Status::invalid_argument("invalid key")),
        }
    }

    async fn join(&self, request: Request<JoinRequest>) -> Answer<JoinResponse> {
        match request.into_inner().token.as_str() {
            "good" => Ok(Response::new(JoinResponse {
                node_id: "n2".into(),
                role: "worker".into(),
                warnings: vec![],
            })),
            _ => Err(Status::permission_denied("invalid join token")),
        }
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Answer<Empty> {
        match request.into_inner().force {
            true => Ok(Response::new(Empty {})),
            false => Err(Status::failed_precondition("this is the last manager: use --force")),
        }
    }

    async fn info(&self, _: Request<Empty>) -> Answer<Document> {
        Ok(Response::new(Document { json: self.world().info.to_string().into() }))
    }

    async fn load_image(&self, request: Request<Streaming<Chunk>>) -> Answer<Documents> {
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            self.world().loaded_bytes += chunk.data.len();
        }
        let image = json!({"Id": "sha256:1", "RepoTags": ["whoami:latest"]});
        Ok(Response::new(Documents { json: vec![image.to_string().into()], stale: String::new() }))
    }

    async fn list_images(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list(|world| &world.images)
    }

    async fn remove_image(&self, request: Request<Reference>) -> Answer<Documents> {
        let name = request.into_inner().name;
        let json = vec![json!({ "Untagged": name }).to_string().into()];
        Ok(Response::new(Documents { json, stale: String::new() }))
    }
}

#[tonic::async_trait]
impl Control for Api {
    async fn rotate_network_keys(&self, _: Request<Empty>) -> Answer<Changed> {
        self.changed("rotate_network_keys".into(), "")
    }

    async fn rotate_root(&self, _: Request<Empty>) -> Answer<Changed> {
        self.changed("rotate_root".into(), "")
    }

    /// A rotation of two nodes that takes three looks.
    async fn inspect_root(&self, _: Request<Empty>) -> Answer<RootStatus> {
        let mut world = self.world();
        world.looks += 1;
        Ok(Response::new(RootStatus {
            root_pem: "-----BEGIN CERTIFICATE-----\n".into(),
            digest: "sha256:00ff".into(),
            rotating: world.looks < 2,
            nodes: 2,
            certificates: world.looks.min(2),
            trusting: if world.looks < 3 { 0 } else { 2 },
            waiting: if world.looks < 2 { vec!["b (it is down)".into()] } else { vec![] },
            converged: world.looks >= 3,
        }))
    }

    async fn join_token(&self, request: Request<JoinTokenRequest>) -> Answer<JoinTokenResponse> {
        let JoinTokenRequest { role, rotate } = request.into_inner();
        let token = format!("SWMTKN-1-{role}{}", if rotate { "-new" } else { "" });
        Ok(Response::new(JoinTokenResponse { token, addr: "192.0.2.1:2377".into() }))
    }

    async fn update_swarm(
        &self,
        request: Request<UpdateSwarmRequest>,
    ) -> Answer<UnlockKeyResponse> {
        let on = request.into_inner().autolock;
        let mut world = self.world();
        world.unlock_key = if on { "SWMKEY-1-k" } else { "" }.to_owned();
        let (unlock_key, warnings) = (world.unlock_key.clone(), world.key_warnings.clone());
        Ok(Response::new(UnlockKeyResponse { unlock_key, warnings }))
    }

    async fn unlock_key(&self, request: Request<UnlockKeyRequest>) -> Answer<UnlockKeyResponse> {
        let mut world = self.world();
        let mut warnings = vec![];
        if request.into_inner().rotate {
            world.unlock_key.push_str("-new");
            warnings.clone_from(&world.key_warnings);
        }
        Ok(Response::new(UnlockKeyResponse { unlock_key: world.unlock_key.clone(), warnings }))
    }

    async fn list_nodes(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list(|world| &world.nodes)
    }

    async fn inspect_node(&self, request: Request<Reference>) -> Answer<Document> {
        self.one("node", &request.into_inner().name, |world| &world.nodes)
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<Changed> {
        let RemoveNodeRequest { name, force } = request.into_inner();
        self.changed(format!("remove_node {name} {force}"), &name)
    }

    async fn create_network(&self, request: Request<Document>) -> Answer<Changed> {
        self.changed(format!("create_network {}", text(&request.into_inner().json)), "net-id")
    }

    async fn list_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list(|world| &world.networks)
    }

    async fn inspect_network(&self, request: Request<InspectNetworkRequest>) -> Answer<Document> {
        self.one("network", &request.into_inner().name, |world| &world.networks)
    }

    async fn remove_network(&self, request: Request<Reference>) -> Answer<Changed> {
        let name = request.into_inner().name;
        if name == "used" {
            return Err(Status::failed_precondition("network used is in use by service web"));
        }
        self.changed(format!("remove_network {name}"), &name)
    }

    async fn prune_networks(&self, _: Request<Empty>) -> Answer<Documents> {
        let json = ["net10", "net2"].iter().map(|name| json!(name).to_string().into()).collect();
        Ok(Response::new(Documents { json, stale: String::new() }))
    }

    async fn create_service(&self, request: Request<Document>) -> Answer<Changed> {
        self.changed(format!("create_service {}", text(&request.into_inner().json)), "service-id")
    }

    async fn update_service(&self, request: Request<UpdateServiceRequest>) -> Answer<Changed> {
        let UpdateServiceRequest { name, version, spec } = request.into_inner();
        {
            let mut world = self.world();
            if world.out_of_date > 0 {
                world.out_of_date -= 1;
                world.services[0]["Version"]["Index"] = json!(version + 1);
                return Err(Status::aborted(format!("service {name} is out of date")));
            }
        }
        self.changed(format!("update_service {name} {version} {}", text(&spec)), "service-id")
    }

    async fn scale_service(&self, request: Request<ScaleServiceRequest>) -> Answer<Changed> {
        let ScaleServiceRequest { name, replicas } = request.into_inner();
        if name == "none" {
            return Err(Status::not_found("service none not found"));
        }
        self.changed(format!("scale_service {name} {replicas}"), &name)
    }

    async fn list_services(&self, _: Request<Empty>) -> Answer<Documents> {
        self.list(|world| &world.services)
    }

    async fn inspect_service(&self, request: Request<Reference>) -> Answer<Document> {
        self.one("service", &request.into_inner().name, |world| &world.services)
    }

    async fn remove_service(&self, request: Request<Reference>) -> Answer<Changed> {
        let name = request.into_inner().name;
        if name == "none" {
            return Err(Status::not_found("service none not found"));
        }
        self.changed(format!("remove_service {name}"), &name)
    }

    type WatchServiceStream = BoxStream<Progress>;

    async fn watch_service(
        &self,
        request: Request<WatchServiceRequest>,
    ) -> Answer<Self::WatchServiceStream> {
        let WatchServiceRequest { service, revision } = request.into_inner();
        let mut world = self.world();
        world.asked.push(format!("watch_service {service} {revision}"));
        if let Some(live) = world.live.pop_front() {
            return Ok(Response::new(Box::pin(UnboundedReceiverStream::new(live))));
        }
        let said = world.watches.pop_front();
        let silent = said.is_none();
        let said = stream::iter(
            said.unwrap_or_else(|| vec![Ok(Progress { desired: 3, ..Default::default() })]),
        );
        let stream: Self::WatchServiceStream =
            if silent { Box::pin(said.chain(stream::pending())) } else { Box::pin(said) };
        Ok(Response::new(stream))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answer<Documents> {
        let ListTasksRequest { services, nodes } = request.into_inner();
        self.world().asked.push(format!("list_tasks {services:?} {nodes:?}"));
        self.list(|world| &world.tasks)
    }

    async fn inspect_task(&self, request: Request<Reference>) -> Answer<Document> {
        self.one("task", &request.into_inner().name, |world| &world.tasks)
    }

    type LogsStream = BoxStream<LogRecord>;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        let LogsRequest { name, follow, tail } = request.into_inner();
        let mut world = self.world();
        world.asked.push(format!("logs {name} {follow} {tail:?}"));
        let records = world.logs.clone().into_iter().map(Ok);
        Ok(Response::new(Box::pin(stream::iter(records))))
    }

    type ExecStream = BoxStream<ExecOutput>;

    /// Says what it was asked to run, echoes its input until that ends, and exits with the last argument as code.
    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        let mut input = request.into_inner();
        let Some(exec_input::Input::Start(start)) = input.message().await?.and_then(|i| i.input)
        else {
            return Err(Status::invalid_argument("exec begins with what to run"));
        };
        if start.task == "none.1" {
            return Err(Status::not_found("task none.1 not found"));
        }
        if let Some(size) = &start.size {
            self.world().sizes.push((size.rows, size.columns));
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        let api = self.clone();
        tokio::spawn(async move { api.echo(start, input, sender).await });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Answer<Changed> {
        let UpdateNodeRequest { name, availability, role, label_add, label_rm } =
            request.into_inner();
        let added: std::collections::BTreeMap<_, _> = label_add.into_iter().collect();
        let what = format!("update_node {name} {availability} {role} {added:?} {label_rm:?}");
        self.changed(what, &name)
    }

    type BackupStream = tokio_stream::wrappers::ReceiverStream<Result<Chunk, Status>>;

    /// In two pieces; or, while the world is out of date, one and then an error.
    async fn backup(&self, _: Request<Empty>) -> Answer<Self::BackupStream> {
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let fails = !self.world().stale.is_empty();
        sender.try_send(Ok(Chunk { data: b"back".as_slice().into() })).expect("room");
        let second = match fails {
            true => Err(Status::unavailable("no quorum")),
            false => Ok(Chunk { data: b"up".as_slice().into() }),
        };
        sender.try_send(second).expect("room");
        Ok(Response::new(tokio_stream::wrappers::ReceiverStream::new(receiver)))
    }
}

impl Api {
    async fn echo(
        self,
        start: ExecStart,
        mut input: Streaming<ExecInput>,
        sender: tokio::sync::mpsc::Sender<Result<ExecOutput, Status>>,
    ) {
        let say = async |output| {
            // The client may be gone; then the test knows.
            let _ = sender.send(Ok(ExecOutput { output: Some(output) })).await;
        };
        let banner = format!("{} {:?} {:?} {:?}\n", start.task, start.args, start.env, start.user);
        say(exec_output::Output::Stderr(banner.into())).await;
        loop {
            let next = if start.stdin { input.message().await.ok().flatten() } else { None };
            match next.and_then(|input| input.input) {
                Some(exec_input::Input::Stdin(bytes)) if start.tty && bytes.contains(&b'q') => {
                    break;
                }
                Some(exec_input::Input::Stdin(bytes)) => {
                    say(exec_output::Output::Stdout(bytes)).await;
                }
                Some(exec_input::Input::Resize(size)) => {
                    self.world().sizes.push((size.rows, size.columns));
                }
                _ => break,
            }
        }
        let code = start.args.last().and_then(|word| word.parse().ok()).unwrap_or(0);
        say(exec_output::Output::ExitCode(code)).await;
    }
}
