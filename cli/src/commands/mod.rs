//! What each command does: one file per group.

mod autolock;
mod backup;
mod ca;
mod exec;
mod image;
mod info;
mod logs;
mod network;
mod node;
mod service;
mod swarm;
mod tasks;
mod update;

use std::future::Future;

use swarm_proto::control::{Document, Documents};
use tonic::{Response, Status};

use crate::args::{Command, Host, NodeCommand, ServiceCommand, SwarmCommand, TaskCommand};
use crate::client::Client;
use crate::error::Error;
use crate::output::{self, json};

/// Runs one command.
pub(crate) async fn run(host: &Host, command: Command) -> Result<(), Error> {
    let client = Client::connect(host).await?;
    match command {
        Command::Short(command) | Command::Swarm(command) => run_swarm(client, command).await,
        Command::Backup { file } => backup::run(client, &file).await,
        Command::Info(flags) => info::show(client, &flags).await,
        Command::Node(NodeCommand::Ps(flags)) => tasks::of_nodes(client, flags).await,
        Command::Node(command) => node::run(client, command).await,
        Command::Network(command) => network::run(client, command).await,
        Command::Service(ServiceCommand::Update(flags)) => update::run(client, &flags).await,
        Command::Service(ServiceCommand::Logs(flags)) => logs::show(client, flags).await,
        Command::Service(ServiceCommand::Ps { ps, names }) => {
            tasks::of_services(client, ps, names).await
        }
        Command::Service(command) => service::run(client, command).await,
        Command::Task(TaskCommand::Ls(flags)) => tasks::all(client, flags).await,
        Command::Task(TaskCommand::Inspect { names }) => tasks::inspect(client, names).await,
        Command::Task(TaskCommand::Logs(flags)) => logs::show(client, flags).await,
        Command::Task(TaskCommand::Exec(flags)) => exec::run(client, flags).await,
        Command::Image(command) => image::run(client, command).await,
    }
}

async fn run_swarm(client: Client, command: SwarmCommand) -> Result<(), Error> {
    match command {
        SwarmCommand::Init(flags) => swarm::init(client, flags).await,
        SwarmCommand::Join(flags) => swarm::join(client, flags).await,
        SwarmCommand::JoinToken(flags) => swarm::join_token(client, flags).await,
        SwarmCommand::Update(flags) => autolock::update(client, &flags).await,
        SwarmCommand::Unlock => autolock::unlock(client).await,
        SwarmCommand::UnlockKey(flags) => autolock::unlock_key(client, &flags).await,
        SwarmCommand::Ca(flags) => ca::run(client, &flags).await,
        SwarmCommand::Leave { force } => swarm::leave(client, force).await,
    }
}

/// The documents of a list; says so if they may be out of date.
fn fresh(answer: Response<Documents>) -> Vec<impl AsRef<[u8]>> {
    let answer = answer.into_inner();
    if !answer.stale.is_empty() {
        output::warn(&format!("this list may be out of date: {}", answer.stale));
    }
    answer.json
}

/// `inspect`: prints those that are found as one array, then says what the others lack.
async fn inspect<F>(
    what: &'static str,
    names: Vec<String>,
    ask: impl Fn(String) -> F,
) -> Result<(), Error>
where
    F: Future<Output = Result<Response<Document>, Status>>,
{
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for name in names {
        match ask(name).await {
            Ok(document) => found.push(document.into_inner().json),
            Err(status) => failed.push(Error::from(status)),
        }
    }
    output::line(&json::array(what, &found)?)?;
    all_done(failed)
}

/// Does the same to each of `names`, whatever happens to the others; prints the name of each that worked.
async fn each<F>(names: Vec<String>, act: impl Fn(String) -> F) -> Result<(), Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let mut failed = Vec::new();
    for name in names {
        match act(name.clone()).await {
            Ok(()) => output::line(&name)?,
            Err(error) => failed.push(error),
        }
    }
    all_done(failed)
}

/// Reports each failure on a line of its own.
fn all_done(mut failed: Vec<Error>) -> Result<(), Error> {
    let Some(last) = failed.pop() else { return Ok(()) };
    for error in &failed {
        output::failure(error);
    }
    Err(last)
}

/// Prints swarmd's warnings about a change.
fn warnings(warnings: &[String]) {
    for warning in warnings {
        output::warn(warning);
    }
}
