//! Which resolvers the node itself uses: the `nameserver` lines of resolv.conf(5).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

use crate::LISTEN_ADDRESS;

const DNS_PORT: u16 = 53;
/// As many as the C library uses (MAXNS in <resolv.h>).
const MAX_NAME_SERVERS: usize = 3;

/// The resolvers named in the text of a resolv.conf(5), port 53, in order and without duplicates, at most three,
/// as the C library does. 127.0.0.11 is left out: that is this server, and asking it would be a loop. Lines that name
/// no address are skipped. A scoped address (`fe80::1%eth0`) is kept if the interface exists.
pub fn parse_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let Some(server) = words.next().and_then(parse_address) else {
            continue;
        };
        if server != LISTEN_ADDRESS && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers.truncate(MAX_NAME_SERVERS);
    servers
}

fn parse_address(word: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse::<IpAddr>().ok()?, DNS_PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_name_servers_are_taken_in_order() {
        let text = "# comment\nsearch example.org\nnameserver 192.0.2.1\n\tnameserver  2001:db8::1 # v6\n\
                    nameserver 192.0.2.1\nnameserver not-an-address\nnameserver\noptions ndots:0\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"];
        assert_eq!(parse_resolv_conf(text), expected.map(|text| text.parse().unwrap()));
    }

    #[test]
    fn the_server_itself_is_left_out() {
        let servers = parse_resolv_conf("nameserver 127.0.0.11\nnameserver 127.0.0.53\n");
        assert_eq!(servers, ["127.0.0.53:53".parse().unwrap()]);
        assert_eq!(parse_resolv_conf("nameserver 127.0.0.11"), []);
    }

    #[test]
    fn scoped_addresses_keep_their_interface() {
        let servers = parse_resolv_conf("nameserver fe80::1%7\nnameserver fe80::2%no-such-if\n");
        assert_eq!(servers, [SocketAddrV6::new("fe80::1".parse().unwrap(), 53, 0, 7).into()]);
    }
}
