//! Counters of services and destinations.

use crate::{
    attribute::{Attribute, Malformed, find, optional},
    uapi::stats,
};

/// Counters since creation or the last [`crate::Ipvs::zero`], and rates.
///
/// The kernel sums its processors' counters up every two seconds; until then it says what it said before. Kernels
/// before 4.1 have 32 bits for all but bytes. "In" is from clients to destinations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections scheduled.
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Packets to clients; masquerading only, other answers do not pass here.
    pub packets_out: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients, as for packets.
    pub bytes_out: u64,
    /// Connections per second now.
    pub connection_rate: u64,
    /// Packets from clients per second now.
    pub packet_rate_in: u64,
    /// Packets to clients per second now.
    pub packet_rate_out: u64,
    /// Bytes from clients per second now.
    pub byte_rate_in: u64,
    /// Bytes to clients per second now.
    pub byte_rate_out: u64,
}

impl Stats {
    /// Reads the statistics nested in attribute `wide`, or else in `narrow`; zero if there are none.
    pub(crate) fn decode(
        attributes: &[Attribute],
        wide: u16,
        narrow: u16,
    ) -> Result<Self, Malformed> {
        let Some(nest) = find(attributes, wide).or_else(|| find(attributes, narrow)) else {
            return Ok(Self::default());
        };
        let nested = nest.as_nest()?;
        let count = |number| optional(&nested, number, Attribute::as_count, 0);
        Ok(Self {
            connections: count(stats::CONNS)?,
            packets_in: count(stats::INPKTS)?,
            packets_out: count(stats::OUTPKTS)?,
            bytes_in: count(stats::INBYTES)?,
            bytes_out: count(stats::OUTBYTES)?,
            connection_rate: count(stats::CPS)?,
            packet_rate_in: count(stats::INPPS)?,
            packet_rate_out: count(stats::OUTPPS)?,
            byte_rate_in: count(stats::INBPS)?,
            byte_rate_out: count(stats::OUTBPS)?,
        })
    }
}
