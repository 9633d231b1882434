//! `ca`: the root certificate, and its rotation as Docker shows it.

use std::time::Duration;

use swarm_proto::control::{Empty, RootStatus};
use tokio::time::Instant;

use crate::args::Ca;
use crate::client::{Client, ask};
use crate::display::Display;
use crate::error::Error;
use crate::output;

/// How often to ask how far a rotation is.
const LOOK: Duration = Duration::from_millis(200);
/// How long to try again when swarmd is between leaders, or away.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn run(mut client: Client, flags: &Ca) -> Result<(), Error> {
    if flags.rotate_network_keys {
        client.control.rotate_network_keys(ask(Empty {})).await?;
        return output::line(
            "Network keys are being rotated. 'swarmctl network inspect' of an encrypted network shows how far.",
        );
    }
    if flags.rotate {
        client.control.rotate_root(ask(Empty {})).await?;
        if flags.detach {
            return Ok(());
        }
        wait(&mut client, flags.quiet).await?;
        if flags.quiet {
            return Ok(());
        }
    }
    output::line(inspect(&mut client).await?.root_pem.trim_end())
}

async fn inspect(client: &mut Client) -> Result<RootStatus, Error> {
    Ok(client.control.inspect_root(ask(Empty {})).await?.into_inner())
}

async fn wait(client: &mut Client, quiet: bool) -> Result<(), Error> {
    tokio::select! {
        outcome = follow(client, quiet) => outcome,
        caught = tokio::signal::ctrl_c() => {
            caught.map_err(|e| Error::io("listen for Ctrl-C", e))?;
            Err(Error::Interrupted(
                "\nThe rotation goes on in the background. Watch it with: swarmctl info".to_owned(),
            ))
        }
    }
}

async fn follow(client: &mut Client, quiet: bool) -> Result<(), Error> {
    let mut display = Display::new(quiet);
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        match inspect(client).await {
            Ok(status) => {
                deadline = Instant::now() + PATIENCE;
                display.show(&status);
                if status.converged {
                    return Ok(());
                }
            }
            Err(error) if !error.is_passing() || Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await; // nodes change over one by one, and nothing tells of it
    }
}
