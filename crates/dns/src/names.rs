//! What the server publishes: an immutable snapshot of names and addresses, one part per network.
//! A change to one network replaces that network's part and shares all others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::Name;

use crate::Error;

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A service's virtual address.
    Vip(IpAddr),
    /// Task addresses, all given in every answer, shuffled anew each time. Empty for a service without
    /// running tasks: the name still exists, and the answer is NOERROR without records.
    Addresses(Vec<IpAddr>),
}

impl Answer {
    /// The addresses behind the name, in the order they were given.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Vip(address) => std::slice::from_ref(address),
            Self::Addresses(addresses) => addresses,
        }
    }
}

/// The names of one network. Filled by its maker, then published and never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkNames {
    names: HashMap<Box<str>, Answer>,
    reverse: HashMap<IpAddr, Name>,
}

impl NetworkNames {
    /// A network without names.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes `name` (any case, with or without a trailing dot; one label or several), replacing what it
    /// resolved to before, which is returned.
    ///
    /// # Errors
    /// [`Error::InvalidName`] if DNS cannot carry it: empty labels, labels over 63 octets, over 253 octets in
    /// all, or characters that are not printable ASCII.
    pub fn insert(&mut self, name: &str, answer: Answer) -> Result<Option<Answer>, Error> {
        Ok(self.names.insert(normal_form(name)?.into(), answer))
    }

    /// Publishes that `address` belongs to `name`, for PTR queries.
    ///
    /// # Errors
    /// [`Error::InvalidName`], as for [`insert`](Self::insert).
    pub fn insert_reverse(&mut self, address: IpAddr, name: &str) -> Result<(), Error> {
        let labels = normal_form(name)?;
        let name = Name::from_labels(labels.split('.').map(str::as_bytes))
            .map_err(|_| invalid(name, "it is no domain name"))?;
        self.reverse.insert(address, name);
        Ok(())
    }

    /// What `name` (lower case, no trailing dot) resolves to.
    pub fn get(&self, name: &str) -> Option<&Answer> {
        self.names.get(name)
    }

    /// The name of `address`, fully qualified.
    pub fn get_reverse(&self, address: IpAddr) -> Option<&Name> {
        self.reverse.get(&address)
    }

    /// How many names there are, without the reverse ones.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no name at all.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// The names of all networks of a node, by network id. Cloning it copies one pointer per network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Each network's names, by network id.
    pub networks: HashMap<Arc<str>, Arc<NetworkNames>>,
}

impl Names {
    /// The first answer among `networks`, asked in order of preference.
    pub(crate) fn find(&self, networks: &[Arc<str>], name: &str) -> Option<&Answer> {
        self.among(networks).find_map(|network| network.get(name))
    }

    /// The first reverse answer among `networks`, asked in order of preference.
    pub(crate) fn find_reverse(&self, networks: &[Arc<str>], address: IpAddr) -> Option<&Name> {
        self.among(networks).find_map(|network| network.get_reverse(address))
    }

    fn among(&self, networks: &[Arc<str>]) -> impl Iterator<Item = &NetworkNames> {
        networks.iter().filter_map(|id| self.networks.get(id)).map(Arc::as_ref)
    }
}

/// Lower case, without the trailing dot, checked against RFC 1035 section 2.3.4.
fn normal_form(name: &str) -> Result<String, Error> {
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.len() > 253 {
        return Err(invalid(name, "it is longer than 253 characters"));
    }
    for label in bare.split('.') {
        if label.is_empty() {
            return Err(invalid(name, "it has an empty label"));
        }
        if label.len() > 63 {
            return Err(invalid(name, "a label is longer than 63 characters"));
        }
        if !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid(name, "it has characters other than printable ASCII"));
        }
    }
    Ok(bare.to_ascii_lowercase())
}

fn invalid(name: &str, reason: &'static str) -> Error {
    Error::InvalidName { name: name.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_in_lower_case_without_the_trailing_dot() {
        let mut names = NetworkNames::new();
        let vip = Answer::Vip([10, 0, 0, 2].into());
        assert_eq!(names.insert("Web.Shop.", vip.clone()).unwrap(), None);
        assert_eq!(names.get("web.shop"), Some(&vip));
        assert_eq!(names.insert("web.shop", vip.clone()).unwrap(), Some(vip));
        assert_eq!(names.len(), 1);
    }

    #[test]
    fn names_dns_cannot_carry_are_refused() {
        let mut names = NetworkNames::new();
        let label = "a".repeat(64);
        let long = ["a".repeat(63).as_str(); 4].join(".");
        for bad in ["", ".", "a..b", "a b", "caf\u{e9}", &label, &long] {
            let error = names.insert(bad, Answer::Addresses(vec![])).unwrap_err();
            assert!(matches!(error, Error::InvalidName { .. }), "{bad:?}: {error}");
            assert!(names.insert_reverse([127, 0, 0, 1].into(), bad).is_err(), "{bad:?}");
        }
        assert!(names.is_empty());
    }

    #[test]
    fn the_first_network_that_has_the_name_wins() {
        let network = |last| {
            let mut names = NetworkNames::new();
            names.insert("web", Answer::Vip([10, 0, 0, last].into())).unwrap();
            Arc::new(names)
        };
        let names =
            Names { networks: HashMap::from([("a".into(), network(1)), ("b".into(), network(2))]) };
        let find = |networks: &[&str]| {
            let networks: Vec<Arc<str>> = networks.iter().map(|&id| id.into()).collect();
            names.find(&networks, "web").map(|answer| answer.addresses()[0])
        };
        let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        assert_eq!(find(&["a", "b"]), Some(one));
        assert_eq!(find(&["b", "a"]), Some(two));
        assert_eq!(find(&["unknown", "b"]), Some(two));
        assert_eq!(find(&[]), None);
    }
}
