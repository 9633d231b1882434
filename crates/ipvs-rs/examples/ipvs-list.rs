//! Prints what `ipvsadm -Ln --stats` prints: `ipvs-list [NETNS]`.

use ipvs_rs::{Ipvs, Result, ServiceEntry, ServiceKey, Stats};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    match list(std::env::args().nth(1)).await {
        Ok(text) => {
            print!("{text}");
            std::process::ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ipvs-list: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn list(netns: Option<String>) -> Result<String> {
    let mut ipvs = match netns {
        Some(path) => Ipvs::open_in(path).await?,
        None => Ipvs::open().await?,
    };
    let mut text = format!("IP Virtual Server version {}\n", ipvs.info().await?);
    text += "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n";
    text += "  -> RemoteAddress:Port\n";
    let mut services = ipvs.services().await?;
    services.sort_by_key(|entry| entry.service.key);
    for entry in services {
        text += &line(&label(&entry), &entry.stats);
        let mut destinations = ipvs.destinations(&entry.service.key).await?;
        destinations.sort_by_key(|entry| entry.destination.address);
        for entry in destinations {
            text += &line(&format!("  -> {}", entry.destination.address), &entry.stats);
        }
    }
    Ok(text)
}

fn label(entry: &ServiceEntry) -> String {
    match entry.service.key {
        ServiceKey::Address { protocol, address } => {
            format!("{:<4} {address}", protocol.to_string())
        }
        ServiceKey::Mark { .. } => entry.service.key.to_string().replacen("FWM ", "FWM  ", 1),
    }
}

fn line(label: &str, stats: &Stats) -> String {
    let counts =
        [stats.connections, stats.packets_in, stats.packets_out, stats.bytes_in, stats.bytes_out];
    format!("{label:<33}{}\n", counts.map(count).concat())
}

/// Nine columns: large numbers in thousands, millions and so on.
fn count(number: u64) -> String {
    match number {
        0..100_000_000 => format!(" {number:>8}"),
        100_000_000..100_000_000_000 => format!(" {:>7}K", number / 1_000),
        100_000_000_000..100_000_000_000_000 => format!(" {:>7}M", number / 1_000_000),
        100_000_000_000_000..100_000_000_000_000_000 => format!(" {:>7}G", number / 1_000_000_000),
        _ => format!(" {:>7}T", number / 1_000_000_000_000),
    }
}
