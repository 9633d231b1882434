//! What an `ensure` had to program: nothing, when the kernel already is as it should be.

use std::fmt;
use std::ops::AddAssign;

/// Number of kernel objects created, altered or deleted, by kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Changes {
    /// Network namespaces.
    pub namespaces: usize,
    /// Links: bridge, VXLAN device, veth pairs and their port settings.
    pub links: usize,
    /// IPv4 addresses.
    pub addresses: usize,
    /// IPv4 routes.
    pub routes: usize,
    /// Permanent neighbour (ARP) entries.
    pub neighbours: usize,
    /// Forwarding entries of the VXLAN device and of bridge ports.
    pub fdb: usize,
    /// Kernel parameters.
    pub sysctls: usize,
}

impl Changes {
    /// Everything together.
    pub fn total(&self) -> usize {
        self.parts().iter().map(|(count, _, _)| count).sum()
    }

    /// Whether the kernel was as it should be.
    pub fn is_empty(&self) -> bool {
        self.total() == 0
    }

    fn parts(&self) -> [(usize, &'static str, &'static str); 7] {
        [
            (self.namespaces, "namespace", "namespaces"),
            (self.links, "link", "links"),
            (self.addresses, "address", "addresses"),
            (self.routes, "route", "routes"),
            (self.neighbours, "neighbour", "neighbours"),
            (self.fdb, "fdb entry", "fdb entries"),
            (self.sysctls, "sysctl", "sysctls"),
        ]
    }
}

impl AddAssign for Changes {
    fn add_assign(&mut self, other: Self) {
        self.namespaces += other.namespaces;
        self.links += other.links;
        self.addresses += other.addresses;
        self.routes += other.routes;
        self.neighbours += other.neighbours;
        self.fdb += other.fdb;
        self.sysctls += other.sysctls;
    }
}

/// `1 address, 2 fdb entries`, or `nothing`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (count, one, many) in self.parts().into_iter().filter(|(count, _, _)| *count > 0) {
            write!(f, "{separator}{count} {}", if count == 1 { one } else { many })?;
            separator = ", ";
        }
        if separator.is_empty() {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_a_sentence() {
        let mut changes = Changes { addresses: 1, ..Changes::default() };
        changes += Changes { fdb: 2, ..Changes::default() };
        assert_eq!(changes.to_string(), "1 address, 2 fdb entries");
        assert_eq!(changes.total(), 3);
        assert_eq!(Changes::default().to_string(), "nothing");
    }
}
