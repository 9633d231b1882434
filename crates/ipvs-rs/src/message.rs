//! A message of the generic netlink family `IPVS`: a command and its attributes.

use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use crate::{
    Attribute, Destination, DestinationEntry, Family, Result, Service, ServiceEntry, ServiceKey,
    attribute::{Malformed, need},
    uapi::{self, top},
};

/// A command (`IPVS_CMD_*`) and its outermost attributes (`IPVS_CMD_ATTR_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) command: u8,
    /// Unknown ones too.
    pub(crate) attributes: Vec<Attribute>,
}

impl Message {
    /// A command that needs nothing said.
    pub(crate) fn plain(command: u8) -> Self {
        Self { command, attributes: vec![] }
    }

    /// A command about the service that `key` names.
    pub(crate) fn about(command: u8, key: &ServiceKey) -> Self {
        Self { command, attributes: vec![Attribute::nest(top::SERVICE, &key.attributes())] }
    }

    /// A command that says all of a service.
    ///
    /// # Errors
    /// As [`Service::attributes`].
    pub(crate) fn service(command: u8, service: &Service) -> Result<Self> {
        let attribute = Attribute::nest(top::SERVICE, &service.attributes()?);
        Ok(Self { command, attributes: vec![attribute] })
    }

    /// A command about a destination of the service that `key` names.
    pub(crate) fn destination(command: u8, key: &ServiceKey, attributes: &[Attribute]) -> Self {
        let mut message = Self::about(command, key);
        message.attributes.push(Attribute::nest(top::DEST, attributes));
        message
    }

    /// A command that says all of a destination.
    pub(crate) fn whole_destination(
        command: u8,
        key: &ServiceKey,
        destination: &Destination,
    ) -> Self {
        Self::destination(command, key, &destination.attributes())
    }

    pub(crate) fn service_entry(&self) -> std::result::Result<ServiceEntry, Malformed> {
        ServiceEntry::decode(need(&self.attributes, top::SERVICE, "service")?.as_nest()?)
    }

    /// `family` is the service's.
    pub(crate) fn destination_entry(
        &self,
        family: Family,
    ) -> std::result::Result<DestinationEntry, Malformed> {
        let nest = need(&self.attributes, top::DEST, "destination")?.as_nest()?;
        DestinationEntry::decode(nest, family)
    }
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        uapi::FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        uapi::VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(
        buffer: &[u8],
        header: GenlHeader,
    ) -> std::result::Result<Self, DecodeError> {
        let attributes = Attribute::parse_all(buffer).map_err(|error| error.to_string())?;
        Ok(Self { command: header.cmd, attributes })
    }
}
