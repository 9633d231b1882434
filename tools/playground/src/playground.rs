//! A whole playground: make it, find it, remove it.

use crate::error::IoContext;
use crate::host;
use crate::lan::{self, Lan};
use crate::node::Node;
use crate::options::Options;
use crate::record::{self, NodeRecord, Place, RUN_ROOT, Record};
use crate::{Error, Result, sample_image, swarm, way_out};
use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Last octet of the machine's own address on the LAN.
const GATEWAY_OFFSET: u32 = 254;

/// Hosts on a LAN of their own on this machine. Dropping the value changes nothing: a playground lives until [`Playground::down`].
#[derive(Debug, Clone)]
pub struct Playground {
    record: Arc<Record>,
}

impl Playground {
    /// Makes the hosts, boots them and, if asked, makes them one swarm; removes everything again if that fails.
    ///
    /// # Errors
    /// [`Error::Options`], [`Error::Exists`], or what went wrong on the way.
    pub fn up(options: &Options) -> Result<Self> {
        options.validate()?;
        require_root()?;
        for program in [&options.swarmd, &options.swarmctl, &options.playground] {
            require_file(program)?;
        }
        let place = Place::new(&options.name)?;
        let record = reserve(&place, options)?;
        let playground = Self { record: Arc::new(record) };
        match playground.bring_up(options) {
            Ok(()) => Ok(playground),
            Err(error) => {
                if let Err(teardown) = remove(&place) {
                    eprintln!("error: {teardown}");
                }
                Err(error)
            }
        }
    }

    fn bring_up(&self, options: &Options) -> Result<()> {
        for index in 0..self.record.nodes.len() {
            host::boot(&self.record, index)?;
        }
        if options.form_swarm {
            swarm::form(&self.nodes(), self.record.managers)?;
        }
        match &options.whoami {
            Some(whoami) => self.load_sample_image(whoami),
            None => Ok(()),
        }
    }

    fn load_sample_image(&self, whoami: &Path) -> Result<()> {
        // On the disk: a host has a /run of its own.
        let archive = self.record.place().disk_dir().join("whoami.tar");
        let file = File::create(&archive).io("create", archive.display())?;
        sample_image::write(whoami, file)?;
        swarm::load_image(&self.nodes(), &archive)
    }

    /// The playground of that name.
    ///
    /// # Errors
    /// [`Error::NotUp`].
    pub fn open(name: &str) -> Result<Self> {
        Ok(Self { record: Arc::new(Record::load(name)?) })
    }

    /// Every playground of this machine, by name.
    ///
    /// # Errors
    /// When their records cannot be read.
    pub fn list() -> Result<Vec<Self>> {
        let opened = record::names()?.into_iter().map(|name| Self::open(&name));
        // One that went meanwhile is not there.
        opened.filter(|one| !matches!(one, Err(Error::NotUp(_)))).collect()
    }

    /// Removes the playground of that name, also what a crash left of it; nothing left is no error.
    ///
    /// # Errors
    /// [`Error::Teardown`] with everything that could not be removed.
    pub fn down(name: &str) -> Result<()> {
        require_root()?;
        remove(&Place::new(name)?)
    }

    /// A guard that takes this playground down when it is dropped, for tests.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard { name: self.name().to_owned() }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its LAN.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.record.subnet
    }

    /// This machine's address on that LAN: where hosts find, say, a registry that runs here.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.record.gateway
    }

    /// Host `number`, from 1 as in its name.
    ///
    /// # Panics
    /// When there is no such host.
    #[must_use]
    pub fn node(&self, number: usize) -> Node {
        assert!(
            (1..=self.record.nodes.len()).contains(&number),
            "playground {} has nodes 1 to {}, not {number}",
            self.name(),
            self.record.nodes.len()
        );
        Node::new(Arc::clone(&self.record), number - 1)
    }

    /// All hosts.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        (0..self.record.nodes.len())
            .map(|index| Node::new(Arc::clone(&self.record), index))
            .collect()
    }

    /// The host of that name in whatever playground.
    ///
    /// # Errors
    /// [`Error::NoSuchNode`].
    pub fn find_node(hostname: &str) -> Result<Node> {
        Self::list()?
            .iter()
            .flat_map(Self::nodes)
            .find(|node| node.name() == hostname)
            .ok_or_else(|| Error::NoSuchNode(hostname.to_owned()))
    }
}

/// Takes a playground down when dropped, also by a panic.
#[derive(Debug)]
pub struct Guard {
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = Playground::down(&self.name) {
            eprintln!("error: {error}");
        }
    }
}

/// Claims name and subnet, makes the LAN and writes the record; under a lock, so that two at once do not choose the same.
fn reserve(place: &Place, options: &Options) -> Result<Record> {
    let _lock = lock()?;
    let run_dir = place.run_dir();
    match fs::create_dir(&run_dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            return Err(Error::Exists(place.name.clone()));
        }
        other => other.io("create", run_dir.display())?,
    }
    let made = make_record(place, options).and_then(|record| {
        // Disks of before a reboot of the machine, of which nothing else is left.
        remove_dir(&place.disk_dir())?;
        record.save()?;
        place.cgroup()?.create()?;
        Lan::of(place).create(record.subnet, record.gateway)?;
        Ok(record)
    });
    if made.is_err() {
        report(remove_locked(place));
    }
    made
}

fn make_record(place: &Place, options: &Options) -> Result<Record> {
    let subnet = lan::choose_subnet(options.subnet)?;
    let base = u32::from(subnet.network());
    let nodes = (1u32..)
        .take(options.nodes)
        .map(|number| NodeRecord {
            hostname: format!("{}-{number}", place.name),
            address: Ipv4Addr::from(base + number),
        })
        .collect();
    Ok(Record {
        name: place.name.clone(),
        subnet,
        gateway: Ipv4Addr::from(base + GATEWAY_OFFSET),
        nodes,
        managers: options.manager_count(),
        swarmd: absolute(&options.swarmd)?,
        swarmctl: absolute(&options.swarmctl)?,
        playground: absolute(&options.playground)?,
        insecure_registries: options.insecure_registries.clone(),
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize().io("find", path.display())
}

fn remove(place: &Place) -> Result<()> {
    let _lock = lock()?;
    remove_locked(place)
}

/// Tries every step, whatever the others say.
fn remove_locked(place: &Place) -> Result<()> {
    let mut errors: Vec<Error> = Vec::new();
    errors.extend(end_processes(place).err());
    errors.extend(Lan::of(place).remove());
    errors.extend(remove_dir(&place.disk_dir()).err());
    // The record goes last: while it is there, `down` is asked for.
    if errors.is_empty() {
        errors.extend(remove_dir(&place.run_dir()).err());
        errors.extend(Place::remove_shared().err());
    }
    errors.extend(way_out::restore_forwarding().err());
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::Teardown {
        name: place.name.clone(),
        errors: errors.iter().map(ToString::to_string).collect(),
    })
}

fn end_processes(place: &Place) -> Result<()> {
    let group = place.cgroup()?;
    for hostname in group.children() {
        place.node_cgroup(&hostname)?.kill_all()?;
    }
    group.remove()
}

fn report(outcome: Result<()>) {
    if let Err(error) = outcome {
        eprintln!("error: {error}");
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e).io("remove", dir.display()),
        _ => Ok(()),
    }
}

/// Held while playgrounds come and go.
fn lock() -> Result<Flock<File>> {
    fs::create_dir_all(RUN_ROOT).io("create", RUN_ROOT)?;
    let path = Path::new(RUN_ROOT).join("lock");
    let file = File::create(&path).io("create", path.display())?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .io("lock", path.display())
}

fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::Options(
        "a playground makes network namespaces, so it must be run as root".to_owned(),
    ))
}

fn require_file(path: &Path) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    Err(Error::BadFile { path: path.to_owned(), reason: "no such file".to_owned() })
}
