//! A shim executable of its own: what `swarmd shim ...` does, without the rest of `swarmd`. Tests use it.

fn main() -> std::process::ExitCode {
    swarm_runtime::shim::main()
}
