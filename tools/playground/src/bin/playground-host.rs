//! A host's init on its own, for tests of this crate; `swarmctl playground-host` is the same for everybody else.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_none_or(|word| word != swarm_playground::HOST_COMMAND) {
        eprintln!("usage: playground-host {} ...", swarm_playground::HOST_COMMAND);
        return ExitCode::from(2);
    }
    swarm_playground::host_main(args)
}
