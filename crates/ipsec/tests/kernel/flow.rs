//! Datagrams from A's task to B's and back, counted.

use std::{
    cell::Cell,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    lab::{Host, Lab},
    namespace::eventually,
};

const ECHO: u16 = 7;

/// B's task answers as long as this lives.
pub(crate) struct Echo {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(host: &Host) -> Self {
        let socket = host.socket(ECHO);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let ended = Arc::<AtomicBool>::default();
        let ends = ended.clone();
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !ends.load(Ordering::SeqCst) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // Policies refuse answers while there are no keys; whoever counts them finds out.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A's end.
pub(crate) struct Client {
    socket: UdpSocket,
    to: SocketAddr,
    sent: Cell<u32>,
}

impl Client {
    pub(crate) fn new(lab: &Lab) -> Self {
        let socket = lab.a.socket(0);
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        Self { socket, to: (lab.b.task_address(), ECHO).into(), sent: Cell::new(0) }
    }

    /// Whether one of `tries` datagrams is answered. Refusals by policies are losses.
    pub(crate) fn answered(&self, tries: usize) -> bool {
        (0..tries).any(|_| {
            let number = self.sent.get();
            self.sent.set(number + 1);
            let _ = self.socket.send_to(&number.to_ne_bytes(), self.to);
            self.hears(number)
        })
    }

    /// Passes over late answers to earlier ones.
    fn hears(&self, number: u32) -> bool {
        let mut answer = [0; 4];
        while self.socket.recv(&mut answer).is_ok() {
            if answer == number.to_ne_bytes() {
                return true;
            }
        }
        false
    }

    /// Sends all the time until told to end.
    pub(crate) fn stream(self) -> Stream {
        let count = Arc::<Count>::default();
        let (receiver, counts) = (self.socket.try_clone().unwrap(), count.clone());
        let sender = thread::spawn(move || {
            while !counts.ended.load(Ordering::SeqCst) {
                // More could overflow the receiver's buffer if that is not given a CPU for a while.
                if counts.outstanding() < OUTSTANDING {
                    self.socket.send_to(&[0xff; 8], self.to).expect("keys are there");
                    counts.sent.fetch_add(1, Ordering::SeqCst);
                }
                thread::sleep(Duration::from_millis(1)); // between two packets
            }
        });
        let counts = count.clone();
        let hearer = thread::spawn(move || {
            while !counts.closed.load(Ordering::SeqCst) {
                if receiver.recv(&mut [0; 16]).is_ok_and(|length| length == 8) {
                    counts.answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Stream { count, threads: [sender, hearer] }
    }
}

const OUTSTANDING: u32 = 50;

#[derive(Default)]
struct Count {
    sent: AtomicU32,
    answered: AtomicU32,
    /// Nothing more is sent.
    ended: AtomicBool,
    /// Nothing more is heard.
    closed: AtomicBool,
}

impl Count {
    fn outstanding(&self) -> u32 {
        self.sent.load(Ordering::SeqCst).saturating_sub(self.answered.load(Ordering::SeqCst))
    }
}

pub(crate) struct Stream {
    count: Arc<Count>,
    threads: [JoinHandle<()>; 2],
}

impl Stream {
    /// Waits until so many more were answered.
    pub(crate) fn pass(&self, more: u32) {
        let target = self.count.answered.load(Ordering::SeqCst) + more;
        let passed = || self.count.answered.load(Ordering::SeqCst) >= target;
        eventually("datagrams were answered", passed);
    }

    /// Ends it; every datagram must be answered.
    pub(crate) fn end(self) {
        let Self { count, threads: [sender, hearer] } = self;
        count.ended.store(true, Ordering::SeqCst);
        sender.join().expect("the sender");
        eventually("every datagram was answered", || count.outstanding() == 0);
        count.closed.store(true, Ordering::SeqCst);
        hearer.join().expect("the hearer");
    }
}
