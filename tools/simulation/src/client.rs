//! Users: they make, change and remove networks and services through any manager, and hold the swarm to
//! what it told them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use swarm_manager::Control;
use swarm_model::{ServiceMode, ServiceSpec};
use swarm_proto::control::control_server::Control as _;
use swarm_proto::control::{Document, Empty, Reference, ScaleServiceRequest, UpdateServiceRequest};
use tonic::{Request, Status};

use crate::ledger::{Checked, Ledger, violated};
use crate::random::Random;
use crate::versions::NEW;

/// How long a user waits.
const PATIENCE: Duration = Duration::from_secs(15);
/// Services at a time, and tasks of one.
const SERVICES: usize = 4;
const REPLICAS: u64 = 6;

#[derive(Clone, Debug)]
enum Ask {
    CreateNetwork { name: String },
    RemoveNetwork { name: String },
    CreateService { name: String, networks: Vec<String>, replicas: u64 },
    Scale { name: String, replicas: u64 },
    Update { name: String, env: String },
    Remove { name: String },
    List,
}

/// What was promised.
enum Answer {
    Changed {
        id: String,
        revision: u64,
    },
    /// Id, version, name, replicas, environment of each.
    Services(Vec<(String, u64, String, u64, Vec<String>)>),
    /// A list that says that it may be out of date.
    Stale,
}

struct Done {
    ask: Ask,
    /// The newest revision that had been promised when it was asked.
    floor: u64,
    answer: Result<Answer, Status>,
}

/// Counts, for the report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Changes that were acknowledged.
    pub writes: u64,
    /// Changes that were refused, or of which it is not known.
    pub failed: u64,
    /// Reads compared.
    pub reads: u64,
}

/// All users.
pub(crate) struct Clients {
    random: Random,
    done: Arc<Mutex<Vec<Done>>>,
    /// Held by each user who waits for an answer.
    waiting: Arc<()>,
    /// Promises that the ledger has not reached yet.
    promised: Vec<Done>,
    floor: u64,
    networks: BTreeSet<String>,
    services: BTreeMap<String, Vec<String>>,
    next: u64,
    pub(crate) traffic: Traffic,
}

impl Clients {
    pub(crate) fn new(random: Random) -> Clients {
        Clients {
            random,
            done: Arc::default(),
            waiting: Arc::default(),
            promised: Vec::new(),
            floor: 0,
            networks: BTreeSet::new(),
            services: BTreeMap::new(),
            next: 0,
            traffic: Traffic::default(),
        }
    }

    /// Something to ask of a manager.
    pub(crate) fn ask(
        &mut self,
        control: Control,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let ask = self.choose();
        self.asking(ask, control)
    }

    /// Asks for another template of the service.
    pub(crate) fn ask_to_update(
        &mut self,
        name: &str,
        control: Control,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let ask = self.update(name.to_owned());
        self.asking(ask, control)
    }

    fn asking(
        &self,
        ask: Ask,
        control: Control,
    ) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (floor, done, waiting) = (self.floor, self.done.clone(), self.waiting.clone());
        async move {
            let _waiting = waiting;
            let patience = tokio::time::timeout(PATIENCE, carry_out(&control, &ask));
            let late = |_| Err(Status::deadline_exceeded("the user has gone"));
            let answer = patience.await.unwrap_or_else(late);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push(Done { ask, floor, answer });
        }
    }

    fn choose(&mut self) -> Ask {
        let services: Vec<String> = self.services.keys().cloned().collect();
        let networks: Vec<String> = self.networks.iter().cloned().collect();
        if networks.is_empty() || (networks.len() < 3 && self.random.chance(10)) {
            self.next += 1;
            let name = format!("net{}", self.next);
            self.networks.insert(name.clone());
            return Ask::CreateNetwork { name };
        }
        if services.is_empty() || (services.len() < SERVICES && self.random.chance(20)) {
            self.next += 1;
            let name = format!("service{}", self.next);
            let mut on: Vec<String> =
                networks.iter().filter(|_| self.random.chance(50)).cloned().collect();
            on.extend(on.is_empty().then(|| networks[0].clone()));
            self.services.insert(name.clone(), on.clone());
            let replicas = self.random.within(0..REPLICAS);
            return Ask::CreateService { name, networks: on, replicas };
        }
        let name = self.random.pick(&services).cloned().unwrap_or_default();
        match self.random.within(0..100) {
            0..45 => Ask::Scale { name, replicas: self.random.within(0..REPLICAS) },
            45..55 => self.update(name),
            55..61 => {
                self.services.remove(&name);
                Ask::Remove { name }
            }
            61..64 => {
                let used = |n: &String| self.services.values().any(|on| on.contains(n));
                match networks.iter().find(|n| !used(n)).cloned() {
                    Some(name) => {
                        self.networks.remove(&name);
                        Ask::RemoveNetwork { name }
                    }
                    None => Ask::List,
                }
            }
            _ => Ask::List,
        }
    }

    fn update(&mut self, name: String) -> Ask {
        self.next += 1;
        let variable = if self.random.chance(30) { NEW } else { "V=" };
        Ask::Update { name, env: format!("{variable}{}", self.next) }
    }

    /// Holds the swarm to what it answered.
    pub(crate) fn check(&mut self, ledger: &Ledger) -> Checked {
        let done = std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner));
        for done in done {
            match &done.answer {
                Err(_) => self.traffic.failed += 1,
                Ok(Answer::Stale) => {}
                Ok(Answer::Services(_)) => {
                    self.traffic.reads += 1;
                    self.promised.push(done);
                }
                Ok(Answer::Changed { revision, .. }) => {
                    self.traffic.writes += 1;
                    self.floor = self.floor.max(*revision);
                    self.promised.push(done);
                }
            }
        }
        let mut later = Vec::new();
        for done in std::mem::take(&mut self.promised) {
            if !is_kept(&done, ledger)? {
                later.push(done);
            }
        }
        self.promised = later;
        Ok(())
    }

    /// Whether somebody waits for an answer: what was asked may yet be done.
    pub(crate) fn all_answered(&self) -> Result<(), String> {
        match Arc::strong_count(&self.waiting) - 1 {
            0 => Ok(()),
            users => Err(format!("{users} users wait for an answer")),
        }
    }

    /// At the end everything promised must have been seen.
    pub(crate) fn check_all_kept(&self) -> Checked {
        match self.promised.first() {
            Some(done) => violated("acknowledged writes stay", format!("{:?} is gone", done.ask)),
            None => Ok(()),
        }
    }
}

/// False if the ledger is not there yet.
fn is_kept(done: &Done, ledger: &Ledger) -> Result<bool, crate::Violation> {
    match &done.answer {
        Ok(Answer::Changed { id, revision }) => {
            if ledger.end() < *revision {
                return Ok(false);
            }
            let service = ledger.service_at(id, *revision);
            let kept = match &done.ask {
                Ask::CreateNetwork { .. } => ledger.network_at(id, *revision),
                Ask::RemoveNetwork { .. } => !ledger.network_at(id, *revision),
                Ask::CreateService { name, replicas, .. } => {
                    service.is_some_and(|(n, r, _)| n == *name && r == *replicas)
                }
                Ask::Scale { replicas, .. } => service.is_some_and(|(_, r, _)| r == *replicas),
                Ask::Update { env, .. } => service.is_some_and(|(_, _, e)| e == [env.clone()]),
                Ask::Remove { .. } => service.is_none(),
                Ask::List => true,
            };
            match kept {
                true => Ok(true),
                false => violated(
                    "acknowledged writes stay",
                    format!("{:?}, acknowledged at {revision}, is not there", done.ask),
                ),
            }
        }
        Ok(Answer::Services(read)) => {
            let newest = read.iter().map(|(_, version, ..)| *version).max().unwrap_or(0);
            if ledger.end() < newest.max(done.floor) {
                return Ok(false);
            }
            check_read(read, done.floor, ledger).map(|()| true)
        }
        _ => Ok(true),
    }
}

/// Each service must be as it was at some moment since the read began.
fn check_read(
    read: &[(String, u64, String, u64, Vec<String>)],
    floor: u64,
    ledger: &Ledger,
) -> Checked {
    for id in ledger.services() {
        let found = read.iter().find(|(read, ..)| read == id);
        let found = found.map(|(_, _, name, replicas, env)| (name.clone(), *replicas, env.clone()));
        if !ledger.service_since(id, floor).contains(&found) {
            let what =
                format!("service {id} was read as {found:?}, which it was not since {floor}");
            return violated("reads are linearizable", what);
        }
    }
    Ok(())
}

fn json_of(value: &Value) -> Document {
    Document { json: value.to_string().into_bytes().into() }
}

async fn carry_out(control: &Control, ask: &Ask) -> Result<Answer, Status> {
    let changed = match ask {
        Ask::CreateNetwork { name } => {
            control.create_network(Request::new(json_of(&json!({ "Name": name })))).await?
        }
        Ask::RemoveNetwork { name } => {
            control.remove_network(Request::new(Reference { name: name.clone() })).await?
        }
        Ask::CreateService { name, networks, replicas } => {
            let targets: Vec<Value> = networks.iter().map(|n| json!({ "Target": n })).collect();
            let spec = json!({
                "Name": name,
                "TaskTemplate": {
                    "ContainerSpec": { "Image": "app:1" },
                    "RestartPolicy": { "Condition": "any", "Delay": 500_000_000u64 },
                    "Networks": targets,
                },
                "Mode": { "Replicated": { "Replicas": replicas } },
            });
            control.create_service(Request::new(json_of(&spec))).await?
        }
        Ask::Scale { name, replicas } => {
            let request = ScaleServiceRequest { name: name.clone(), replicas: *replicas };
            control.scale_service(Request::new(request)).await?
        }
        Ask::Update { name, env } => {
            let found = control.inspect_service(Request::new(Reference { name: name.clone() }));
            let service: Value = parsed(&found.await?.into_inner().json)?;
            let mut spec: ServiceSpec = serde_json::from_value(service["Spec"].clone())
                .map_err(|e| Status::internal(e.to_string()))?;
            spec.task_template.container_spec.env = vec![env.clone()];
            let version = service["Version"]["Index"].as_u64().unwrap_or(0);
            let spec = json!(spec).to_string().into_bytes().into();
            let request = UpdateServiceRequest { name: name.clone(), version, spec };
            control.update_service(Request::new(request)).await?
        }
        Ask::Remove { name } => {
            control.remove_service(Request::new(Reference { name: name.clone() })).await?
        }
        Ask::List => return list(control).await,
    };
    let changed = changed.into_inner();
    Ok(Answer::Changed { id: changed.id, revision: changed.revision })
}

async fn list(control: &Control) -> Result<Answer, Status> {
    let answer = control.list_services(Request::new(Empty {})).await?.into_inner();
    if !answer.stale.is_empty() {
        return Ok(Answer::Stale);
    }
    let mut read = Vec::new();
    for json in &answer.json {
        let service: Value = parsed(json)?;
        let spec: ServiceSpec = serde_json::from_value(service["Spec"].clone())
            .map_err(|e| Status::internal(e.to_string()))?;
        let ServiceMode::Replicated(replicated) = spec.mode;
        read.push((
            service["ID"].as_str().unwrap_or_default().to_owned(),
            service["Version"]["Index"].as_u64().unwrap_or(0),
            spec.name,
            replicated.replicas,
            spec.task_template.container_spec.env,
        ));
    }
    Ok(Answer::Services(read))
}

fn parsed(json: &[u8]) -> Result<Value, Status> {
    serde_json::from_slice(json).map_err(|e| Status::internal(e.to_string()))
}
