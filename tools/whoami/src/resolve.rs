//! `whoami resolve`: DNS queries as they are on the wire, and their answers.

use crate::args::{Args, Failure};
use crate::dns::{Answer, Kind, reverse_name};
use crate::lookup::{Config, Question};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

struct Style {
    tcp: bool,
    no_tcp: bool,
    short: bool,
}

pub(crate) fn run(mut args: Args) -> Result<(), Failure> {
    let style = Style {
        tcp: args.flag("--tcp"),
        no_tcp: args.flag("--no-tcp"),
        short: args.flag("--short"),
    };
    let template = template(&mut args)?;
    let names = args.rest()?;
    if names.is_empty() {
        return Err(Failure::Usage("it takes a NAME".to_owned()));
    }
    let mut failed = 0;
    for name in &names {
        let question = about(&template, name);
        match ask(&question, &style) {
            Ok(answer) if answer.rcode() == "NOERROR" => {}
            Ok(_) => failed += 1,
            Err(error) => {
                eprintln!("{name}: {error}");
                failed += 1;
            }
        }
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Failed(String::new())) }
}

/// The options that say how to ask, with no name yet.
pub(crate) fn template(args: &mut Args) -> Result<Question, Failure> {
    let server = match args.option::<String>("--server")? {
        Some(text) => parse_server(&text)?,
        None => Config::load().and_then(|c| c.first_server()).map_err(Failure::failed)?,
    };
    Ok(Question {
        name: String::new(),
        kind: args.option("--type")?.unwrap_or(Kind::A),
        edns: args.option("--edns")?,
        server,
        timeout: args.seconds("--timeout")?.unwrap_or(DEFAULT_TIMEOUT),
    })
}

fn parse_server(text: &str) -> Result<SocketAddr, Failure> {
    let with_port = text.parse().ok();
    with_port
        .or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, 53)))
        .ok_or_else(|| Failure::Usage(format!("{text:?} is no address of a server")))
}

/// The question about `name`; the PTR of an address is asked for by its reverse name.
pub(crate) fn about(template: &Question, name: &str) -> Question {
    let address = name.parse::<Ipv4Addr>().ok().filter(|_| template.kind == Kind::PTR);
    Question { name: address.map_or_else(|| name.to_owned(), reverse_name), ..template.clone() }
}

fn ask(question: &Question, style: &Style) -> std::io::Result<Answer> {
    if style.tcp {
        let answer = question.ask_tcp()?;
        print(question, &answer, "tcp", style.short);
        return Ok(answer);
    }
    let answer = question.ask_udp()?;
    if !answer.truncated() || style.no_tcp {
        print(question, &answer, "udp", style.short);
        return Ok(answer);
    }
    if !style.short {
        println!("{}", header(question, &answer, "udp"));
    }
    let answer = question.ask_tcp()?;
    print(question, &answer, "tcp", style.short);
    Ok(answer)
}

/// `;; web. A NOERROR udp flags: qr rd ra; 2 answers, 51 bytes`.
fn header(question: &Question, answer: &Answer, transport: &str) -> String {
    format!(
        ";; {} {} {} {transport} flags: {}; {} answers, {} bytes",
        question.name,
        question.kind,
        answer.rcode(),
        answer.flag_names(),
        answer.records.len(),
        answer.size
    )
}

fn print(question: &Question, answer: &Answer, transport: &str, short: bool) {
    if !short {
        println!("{}", header(question, answer, transport));
    }
    for record in &answer.records {
        if short {
            println!("{}", record.data);
        } else {
            println!("{} {} {} {}", record.name, record.ttl, record.kind, record.data);
        }
    }
}
