//! `unlock`, `unlock-key` and `update --autolock`.

use std::io::{BufRead, IsTerminal};

use swarm_proto::control::{UnlockKeyRequest, UnlockRequest, UpdateSwarmRequest};
use tokio::sync::oneshot;

use super::warnings;
use crate::args::{UnlockKey, UpdateSwarm};
use crate::client::{Client, ask};
use crate::error::Error;
use crate::output;
use crate::signals::EndSignals;
use crate::terminal::Mode;

pub(super) async fn unlock(mut client: Client) -> Result<(), Error> {
    let unlock_key = read_key().await?;
    client.node.unlock(ask(UnlockRequest { unlock_key })).await?;
    Ok(())
}

/// A line of standard input; what is typed there is not shown.
async fn read_key() -> Result<String, Error> {
    // Before anything is hidden: a signal that ended us at once would leave it so.
    let mut signals = EndSignals::listen()?;
    let hidden = match std::io::stdin().is_terminal() {
        true => Some(Mode::unseen()?),
        false => None,
    };
    if hidden.is_some() {
        output::prompt("Please enter unlock key: ");
    }
    let (sender, line) = oneshot::channel();
    // A thread of its own: nothing waits for it when the user gives up.
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        // Nobody may be waiting any more.
        let _ = sender.send(read.map(|_| line));
    });
    let line = tokio::select! {
        line = line => line.unwrap_or_else(|e| Err(std::io::Error::other(e))),
        code = signals.next() => {
            if hidden.is_some() {
                output::note("");
            }
            return Err(Error::Exit(code));
        }
    };
    if hidden.is_some() {
        output::note(""); // the end of the line was not shown either
    }
    let line = line.map_err(|e| Error::io("read the unlock key", e))?;
    Ok(line.trim().to_owned())
}

pub(super) async fn unlock_key(mut client: Client, flags: &UnlockKey) -> Result<(), Error> {
    let request = UnlockKeyRequest { rotate: flags.rotate };
    let answer = client.control.unlock_key(ask(request)).await?.into_inner();
    warnings(&answer.warnings);
    let key = answer.unlock_key;
    if key.is_empty() {
        return Err(Error::Failed("no unlock key is set".to_owned()));
    }
    if flags.quiet {
        return output::line(&key);
    }
    if flags.rotate {
        output::line("Successfully rotated manager unlock key.\n")?;
    }
    output::line(&how_to_unlock(&key))
}

pub(super) async fn update(mut client: Client, flags: &UpdateSwarm) -> Result<(), Error> {
    let request = UpdateSwarmRequest { autolock: flags.autolock };
    let answer = client.control.update_swarm(ask(request)).await?.into_inner();
    warnings(&answer.warnings);
    let key = answer.unlock_key;
    output::line("Swarm updated.")?;
    if key.is_empty() { Ok(()) } else { output::line(&format!("\n{}", how_to_unlock(&key))) }
}

/// What to do with an unlock key.
pub(super) fn how_to_unlock(key: &str) -> String {
    format!(
        "To unlock a swarm manager after it restarts, run the `swarmctl unlock`\n\
         command and provide the following key:\n\n    {key}\n\n\
         Please remember to store this key in a password manager, since without it you\n\
         will not be able to restart the manager.\n"
    )
}
