//! What is on the wire: a capture of a host's underlay interface.

use crate::eventually;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use swarm_playground::Node;

/// A running capture on `eth0` of a host; it ends when dropped.
#[derive(Debug)]
pub struct Capture {
    node: Node,
    file: PathBuf,
    tcpdump: Child,
}

impl Capture {
    /// Starts it, and waits until it captures.
    ///
    /// # Panics
    /// When tcpdump cannot be run.
    #[must_use]
    pub fn start(node: &Node) -> Self {
        let file = node.state_dir().join("underlay.pcap");
        let mut command = node.command("tcpdump").unwrap_or_else(|e| panic!("{e}"));
        command.args([
            "-i",
            "eth0",
            "-s",
            "160",
            "-B",
            "32768",
            "--immediate-mode",
            "-U",
            "-Z",
            "root",
            "-w",
        ]);
        command.arg(&file).stderr(Stdio::piped());
        let tcpdump = command.spawn().unwrap_or_else(|e| panic!("tcpdump: {e}"));
        let mut capture = Self { node: node.clone(), file, tcpdump };
        let stderr = capture.tcpdump.stderr.take().expect("piped just now");
        let mut said = String::new();
        // Its further words are few, so that nobody needs to read them.
        for line in BufReader::new(stderr).lines() {
            let line = line.expect("tcpdump's stderr");
            if line.contains("listening on") {
                return capture;
            }
            said += &line;
        }
        panic!("tcpdump on {}: {said}", node.name());
    }

    /// The packets so far that fit a filter (pcap-filter(7)), one a line, decoded.
    ///
    /// # Panics
    /// When the file cannot be read.
    #[must_use]
    pub fn packets(&self, filter: &str) -> Vec<String> {
        // A packet may be half written: what precedes it is printed even so.
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-nn", "-t", "-r"]).arg(&self.file).arg(filter);
        let output = tcpdump.output().unwrap_or_else(|e| panic!("tcpdump: {e}"));
        // The inner packet of an encapsulated one is printed on a line of its own.
        let mut packets: Vec<String> = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            match packets.last_mut() {
                Some(outer) if outer.contains("VXLAN") && !outer.contains('\n') => {
                    *outer += "\n";
                    *outer += line;
                }
                _ => packets.push(line.to_owned()),
            }
        }
        packets
    }

    /// Waits until all that went through the interface before is in the file: until a ping that is sent now is.
    ///
    /// # Panics
    /// When it does not come.
    pub fn flush(&self, peer: &Node) {
        let address = peer.address().to_string();
        self.node.run(["ping", "-c", "1", "-s", "77", &address]).unwrap_or_else(|e| panic!("{e}"));
        eventually("the last packet in the capture", || {
            let seen = self.packets(&format!("icmp and dst host {address}"));
            if seen.is_empty() { Err("no ping".to_owned()) } else { Ok(()) }
        });
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It may have ended by itself, with its host.
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}
