//! `whoami`: a small server that says who answered whom, and the network tools a task needs to ask it, in one binary.
//!
//! It depends on the standard library and libc alone and never calls the C resolver, so, linked statically, it runs in an empty
//! image.

mod args;
mod dns;
mod echo;
mod get;
mod http;
mod identity;
mod json;
mod load;
mod lookup;
mod ping;
mod resolve;
mod server;
mod stats;
mod sys;
mod udp;

use args::{Args, Failure};
use std::process::ExitCode;

const USAGE: &str = "\
whoami: says who answered whom

  whoami [serve] [--port 80] [--after S]
      HTTP and UDP server; with --after it begins to listen after S seconds. GET / (JSON: hostname, own and client address), /bytes?n=N, /slow?ms=N; POST /echo.
      A UDP packet is answered with a line: hostname, own address, client address. Ends on SIGTERM after requests in flight.
  whoami get [-n COUNT] [-c CONCURRENCY] [--duration S] [--interval MS] [--timeout S] [--keep-alive] [--resolve-once] [--summary] URL
      Calls URL, a new connection for each call. One call prints the body; several, or --summary, a JSON summary.
  whoami echo [-n COUNT] [--timeout S] URL BYTES
      Posts BYTES bytes to URL/echo and compares what comes back.
  whoami udp [-n COUNT] [--timeout S] [--summary] HOST:PORT
      Asks the UDP side of the server.
  whoami resolve [--type A|AAAA|PTR|CNAME|TXT|SOA] [--server IP[:PORT]] [--tcp] [--no-tcp] [--edns SIZE] [--timeout S] [--short] NAME...
      One DNS query a name, as given; a truncated answer is asked for again over TCP unless --no-tcp.
  whoami ping [-n COUNT] [--size BYTES] [--timeout S] [--dont-fragment] HOST
  whoami dns-load [-c CONCURRENCY] [--duration S] [--type T] [--server IP[:PORT]] NAME
  whoami tcp-load [-c CONNECTIONS] [--duration S] URL
      Downloads URL/bytes and prints the throughput.

Exit status: 0 done, 1 something failed, 2 wrong usage.
";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let serves = words.first().is_none_or(|word| word.starts_with("--port"));
    let command = if serves { "serve".to_owned() } else { words.remove(0) };
    let args = Args::new(words);
    let done = match command.as_str() {
        "serve" => server::run(args),
        "get" => get::run(args),
        "echo" | "put" => echo::run(args),
        "udp" => udp::run(args),
        "resolve" => resolve::run(args),
        "ping" => ping::run(args),
        "dns-load" => load::dns(args),
        "tcp-load" => load::tcp(args),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(Failure::Usage(format!("unknown command {other:?}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("error: {command}: {text} (see 'whoami help')");
            ExitCode::from(2)
        }
        Err(Failure::Failed(text)) => {
            if !text.is_empty() {
                eprintln!("error: {command}: {text}");
            }
            ExitCode::FAILURE
        }
    }
}
