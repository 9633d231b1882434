//! Waiting until a change of a service is in force on every node.

use std::time::Duration;

use swarm_proto::control::{Progress, WatchServiceRequest};
use tokio::time::Instant;
use tonic::Streaming;

use crate::args::WaitArgs;
use crate::client::Client;
use crate::display::Display;
use crate::error::Error;

/// How long to try again when swarmd is between leaders, or away.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(250);

/// A change that was taken.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The service as the user calls it.
    pub(crate) name: String,
    /// Its id.
    pub(crate) id: String,
    /// The revision of the change.
    pub(crate) revision: u64,
}

/// Waits for all of `changes`, one after the other, showing how far they are; or not, as the flags say.
///
/// # Errors
/// [`Error::Failed`] when one will not come about; [`Error::Interrupted`] on Ctrl-C.
pub(crate) async fn wait(
    client: &Client,
    changes: &[Change],
    flags: WaitArgs,
) -> Result<(), Error> {
    if flags.detach || changes.is_empty() {
        return Ok(());
    }
    let all = async {
        for change in changes {
            in_force(client, change, flags.quiet).await?;
        }
        Ok(())
    };
    tokio::select! {
        outcome = all => outcome,
        caught = tokio::signal::ctrl_c() => {
            caught.map_err(|e| Error::io("listen for Ctrl-C", e))?;
            let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
            Err(Error::Interrupted(format!(
                "\nThe work goes on in the background. Watch it with: swarmctl service ps {}",
                names.join(" ")
            )))
        }
    }
}

/// Waits for one change.
async fn in_force(client: &Client, change: &Change, quiet: bool) -> Result<(), Error> {
    let mut display = Display::new(quiet);
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let broken = match watch(client, change).await {
            Ok(stream) => match follow(stream, change, &mut display, &mut deadline).await {
                Ok(()) => {
                    display.conclude(&format!("verify: Service {} converged", change.name));
                    return Ok(());
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        if !broken.is_passing() || Instant::now() >= deadline {
            return Err(broken);
        }
        tokio::time::sleep(PAUSE).await; // an election or a restart is not over at once
    }
}

async fn watch(client: &Client, change: &Change) -> Result<Streaming<Progress>, Error> {
    let request = WatchServiceRequest { service: change.id.clone(), revision: change.revision };
    let mut control = client.control.clone();
    Ok(control.watch_service(request).await?.into_inner())
}

/// Shows what a stream says until the change is in force. Each message puts off the deadline.
async fn follow(
    mut stream: Streaming<Progress>,
    change: &Change,
    display: &mut Display,
    deadline: &mut Instant,
) -> Result<(), Error> {
    while let Some(progress) = stream.message().await? {
        *deadline = Instant::now() + PATIENCE;
        display.show(&progress);
        if progress.converged {
            return Ok(());
        }
        if !progress.failure.is_empty() {
            let Change { name, .. } = change;
            return Err(Error::Failed(format!("service {name}: {}", progress.failure)));
        }
    }
    Err(Error::Lost("it stopped telling how far the service is".to_owned()))
}
