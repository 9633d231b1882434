//! How hosts reach what lies beyond the machine: it forwards and masquerades for them, also where its firewall drops what it forwards.

use crate::error::IoContext;
use crate::process::{run, run_with_input};
use crate::record::{self, RUN_ROOT};
use crate::{Error, Result};
use ipnet::Ipv4Net;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Where iptables-nft keeps the machine's own rules; Docker and ufw make the policy of this chain `drop`.
const FIREWALL: [&str; 3] = ["ip", "filter", "FORWARD"];

/// The machine's side of one playground. Rules are known by the playground's name.
pub(crate) struct WayOut {
    /// Name of its nftables table, and comment on its rules in tables of others.
    table: String,
    uplink: String,
}

impl WayOut {
    pub(crate) fn new(table: &str, uplink: &str) -> Self {
        Self { table: table.to_owned(), uplink: uplink.to_owned() }
    }

    /// Opens it for hosts of `subnet`.
    pub(crate) fn open(&self, subnet: Ipv4Net) -> Result<()> {
        enable_forwarding()?;
        let Self { table, .. } = self;
        nft(&format!(
            "table ip {table} {{\n\
               chain postrouting {{\n\
                 type nat hook postrouting priority srcnat; policy accept;\n\
                 ip saddr {subnet} ip daddr != {subnet} masquerade\n\
               }}\n\
             }}\n"
        ))?;
        self.pass_firewall()
    }

    /// An accept elsewhere does not overrule the drop of another chain, so the exception must be in the chain that drops.
    fn pass_firewall(&self) -> Result<()> {
        let Some(chain) = firewall_chain()? else {
            return Ok(());
        };
        let drops = chain.iter().any(|object| object["chain"]["policy"] == "drop");
        if !drops {
            return Ok(());
        }
        let Self { table, uplink } = self;
        let place = FIREWALL.join(" ");
        nft(&format!(
            "insert rule {place} iifname \"{uplink}\" accept comment \"{table}\"\n\
             insert rule {place} oifname \"{uplink}\" accept comment \"{table}\"\n"
        ))
    }

    /// Removes what is left of it; every step is tried.
    pub(crate) fn close(&self) -> Vec<Error> {
        let Self { table, .. } = self;
        // Declared first: deleting a table that is not there would be an error.
        let own_table = nft(&format!("table ip {table}\ndelete table ip {table}\n"));
        [own_table, self.remove_exceptions()].into_iter().filter_map(Result::err).collect()
    }

    fn remove_exceptions(&self) -> Result<()> {
        let chain = firewall_chain()?.unwrap_or_default();
        let ours = chain
            .iter()
            .map(|object| &object["rule"])
            .filter(|rule| rule["comment"] == *self.table);
        let place = FIREWALL.join(" ");
        let batch: String =
            ours.map(|rule| format!("delete rule {place} handle {}\n", rule["handle"])).collect();
        if batch.is_empty() { Ok(()) } else { nft(&batch) }
    }
}

/// The chain in which the machine filters what it forwards, as nft's JSON objects (libnftables-json(5)); `None`: it has none.
fn firewall_chain() -> Result<Option<Vec<Value>>> {
    let Ok(text) =
        run(Command::new("nft").args(["--json", "--handle", "list", "chain"]).args(FIREWALL))
    else {
        return Ok(None);
    };
    let mut value: Value = serde_json::from_str(&text)
        .map_err(std::io::Error::from)
        .io("decode", "the output of nft")?;
    match value["nftables"].take() {
        Value::Array(objects) => Ok(Some(objects)),
        _ => Ok(None),
    }
}

fn nft(commands: &str) -> Result<()> {
    run_with_input(Command::new("nft").args(["-f", "-"]), commands).map(drop)
}

/// Where it is written that forwarding was off before the first playground.
fn forwarding_file() -> PathBuf {
    Path::new(RUN_ROOT).join("ip_forward")
}

fn enable_forwarding() -> Result<()> {
    let now = fs::read_to_string(IP_FORWARD).io("read", IP_FORWARD)?;
    if now.trim() == "0" {
        let file = forwarding_file();
        fs::write(&file, "0").io("write", file.display())?;
        fs::write(IP_FORWARD, "1").io("write", IP_FORWARD)?;
    }
    Ok(())
}

/// Switches forwarding off again when the last playground has gone and it was off before the first.
pub(crate) fn restore_forwarding() -> Result<()> {
    let file = forwarding_file();
    if file.exists() && record::names()?.is_empty() {
        fs::write(IP_FORWARD, "0").io("write", IP_FORWARD)?;
        fs::remove_file(&file).io("remove", file.display())?;
    }
    Ok(())
}
