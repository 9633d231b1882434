//! This host's life: nothing, a node of a swarm, or on the way from one to another. One task owns it and everything that
//! lives with it; others send orders, and see what it shows ([`crate::daemon`]).
//!
//! What takes time is done by a task beside it, which owns the node meanwhile and gives back what has become of it. So an
//! order is answered at once by what is going on.

mod changes;
mod ruling;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use swarm_worker::Standing;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::daemon::{Daemon, Order, OrderError, Shown, View};
use crate::node::{Host, Node};
use ruling::{Asked, Phase, Ruling, rule};
use state::{Answer, Life, Outcome, answer};

pub(crate) use ruling::cannot_start;

/// The pause before another try to start the node, or to become what the swarm says: a node that does not run is soon
/// taken for dead.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long what is under way may take to end when the daemon does.
const ENDING: Duration = Duration::from_secs(10);
/// Orders that wait to be looked at, which takes no time.
const ORDERS: usize = 16;

/// The task that owns it.
struct Owner {
    host: Arc<Host>,
    life: Life,
    shown: watch::Sender<Shown>,
    orders: mpsc::Receiver<Order>,
    /// Came while the node changed in a way that does not concern them.
    waiting: VecDeque<Order>,
    standing: watch::Receiver<Option<Standing>>,
    /// Nothing is tried again before this.
    again: Instant,
}

/// The life's task.
pub(crate) struct Living {
    end: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

/// Begins with what this host was before; fails if that cannot be.
pub(crate) async fn begin(host: Host) -> Result<(Daemon, Living)> {
    let life = changes::resume(&host).await?;
    let host = Arc::new(host);
    let (orders, ordered) = mpsc::channel(ORDERS);
    let (shown, seen) = watch::channel(Shown::Nothing);
    let owner = Owner {
        host: Arc::clone(&host),
        life,
        shown,
        orders: ordered,
        waiting: VecDeque::new(),
        standing: host.standing.subscribe(),
        again: Instant::now(),
    };
    owner.show();
    let (end, ends) = oneshot::channel();
    let task = tokio::spawn(owner.live(ends));
    Ok((Daemon { host, shown: seen, orders }, Living { end, task }))
}

impl Living {
    /// Ends it with the daemon: containers live on.
    pub(crate) async fn end(self) -> Result<()> {
        // A task that has ended has panicked, and says so.
        let _ = self.end.send(());
        self.task.await.map_err(|e| anyhow!("the node ended badly: {e}"))?
    }
}

impl Owner {
    async fn live(mut self, mut ends: oneshot::Receiver<()>) -> Result<()> {
        loop {
            self.go_on();
            let wants_again = self.wants_again();
            tokio::select! {
                _ = &mut ends => return self.end().await,
                Outcome { life, answer } = settled(&mut self.life) => self.settle(life, answer),
                Some(order) = self.orders.recv() => self.hear(order),
                changed = self.standing.changed() => changed?,
                () = tokio::time::sleep_until(self.again), if wants_again => {}
            }
        }
    }

    /// Takes up what is to be done, once nothing else is under way.
    fn go_on(&mut self) {
        while !matches!(self.life, Life::Changing(..)) {
            if let Some(order) = self.waiting.pop_front() {
                self.hear(order);
            } else if self.wants_again() && Instant::now() >= self.again {
                self.try_again();
            } else {
                return;
            }
        }
    }

    /// Whether the node is to start, or to be something else.
    fn wants_again(&self) -> bool {
        match &self.life {
            Life::Failed(_) => true,
            Life::Node(node) => self.new_standing(node).is_some(),
            _ => false,
        }
    }

    /// What the swarm says the node is, if it is something else.
    fn new_standing(&self, node: &Node) -> Option<Standing> {
        let standing = self.standing.borrow().clone()?;
        // Else the host has left, or is another node by now.
        let concerns = node.id() == standing.node.as_str();
        (concerns && node.config.raft_id != standing.raft_id).then_some(standing)
    }

    fn try_again(&mut self) {
        match std::mem::replace(&mut self.life, Life::Nothing) {
            Life::Failed(why) => {
                // It goes on to say why until it has started.
                let work = changes::start_again(Arc::clone(&self.host), why.clone());
                self.change(Phase::Starting, Shown::Failed(why), work);
            }
            Life::Node(node) => match self.new_standing(&node) {
                Some(standing) => {
                    let shown = Shown::Worker(View::of(&node));
                    let work = changes::adapt(Arc::clone(&self.host), node, standing);
                    self.change(Phase::NewRole, shown, work);
                }
                None => self.life = Life::Node(node),
            },
            other => self.life = other,
        }
    }

    fn change(
        &mut self,
        phase: Phase,
        shown: Shown,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) {
        self.shown.send_replace(shown);
        self.life = Life::Changing(phase, tokio::spawn(work));
    }

    /// Shows what has become of it before it is answered: who is told to be in a swarm finds it so.
    fn settle(&mut self, life: Life, answer: Answer) {
        self.life = life;
        if self.wants_again() {
            self.again = Instant::now() + RETRY_PAUSE;
        }
        self.show();
        answer();
    }

    fn show(&self) {
        if let Some(shown) = self.life.shown() {
            self.shown.send_replace(shown);
        }
    }

    fn hear(&mut self, order: Order) {
        let asked = Asked::of(&order);
        match rule(&self.life.phase(), asked) {
            Ruling::Go => self.obey(order),
            Ruling::Wait => self.waiting.push_back(order),
            Ruling::Refuse(why) => refuse(order, why),
        }
    }

    /// Begins what is asked for; the life is one for which that was ruled to be possible.
    fn obey(&mut self, order: Order) {
        let host = Arc::clone(&self.host);
        match (order, std::mem::replace(&mut self.life, Life::Nothing)) {
            (Order::Init(request, reply), Life::Node(node)) if request.force_new_cluster => {
                match crate::alone::objection(&node) {
                    Some(objection) => {
                        self.life = Life::Node(node);
                        answer(reply, Err(OrderError::Refused(objection)));
                    }
                    None => {
                        let work = changes::go_on_alone(host, node, *request, reply);
                        self.change(Phase::Starting, Shown::Starting, work);
                    }
                }
            }
            (Order::Init(request, reply), Life::Nothing) => match self.files_objection() {
                Some(objection) => answer(reply, Err(objection)),
                None => {
                    let work = changes::init(host, *request, reply);
                    self.change(Phase::Joining, Shown::Joining, work);
                }
            },
            (Order::Join(request, reply), Life::Nothing) => match self.files_objection() {
                Some(objection) => answer(reply, Err(objection)),
                None => {
                    let work = changes::join(host, *request, reply);
                    self.change(Phase::Joining, Shown::Joining, work);
                }
            },
            (Order::Leave { force, reply }, Life::Node(node)) => {
                let objection = crate::membership::objection(&node).filter(|_| !force);
                match objection {
                    Some(objection) => {
                        self.life = Life::Node(node);
                        answer(reply, Err(OrderError::Refused(objection)));
                    }
                    None => {
                        let work = changes::leave(host, node, reply);
                        self.change(Phase::Leaving, Shown::Leaving, work);
                    }
                }
            }
            (Order::Leave { reply, .. }, Life::Locked(node)) => {
                let work = changes::leave_locked(host, node, reply);
                self.change(Phase::Leaving, Shown::Leaving, work);
            }
            (Order::Unlock(key, reply), Life::Locked(node)) => {
                let shown = Shown::Locked { id: node.id.clone(), addr: node.config.data_path_addr };
                let work = changes::unlock(host, node, key, reply);
                self.change(Phase::Starting, shown, work);
            }
            (Order::Move, Life::Node(node)) => {
                self.change(Phase::Starting, Shown::Starting, changes::move_on(host, node));
            }
            (order, life) => {
                self.life = life;
                refuse(order, "this node cannot do that now".to_owned());
            }
        }
    }

    /// A host without a node may find the files of one that another daemon, or a backup, left: then that is to start.
    fn files_objection(&mut self) -> Option<OrderError> {
        match self.host.files.load() {
            Ok(None) => None,
            Ok(Some(_)) => {
                let why = "it has not been started yet".to_owned();
                let text = cannot_start(&why);
                self.life = Life::Failed(why);
                self.show();
                Some(OrderError::Refused(text))
            }
            Err(e) => Some(OrderError::Failed(e)),
        }
    }

    async fn end(self) -> Result<()> {
        let life = match self.life {
            Life::Changing(_, mut work) => match tokio::time::timeout(ENDING, &mut work).await {
                Ok(Ok(Outcome { life, answer })) => {
                    answer();
                    life
                }
                Ok(Err(e)) => return Err(anyhow!("the node ended badly: {e}")),
                Err(_) => {
                    work.abort();
                    return Ok(());
                }
            },
            life => life,
        };
        match life {
            Life::Node(node) => node.shutdown().await,
            Life::Locked(node) => {
                node.shutdown().await;
                Ok(())
            }
            Life::Nothing | Life::Failed(_) | Life::Changing(..) => Ok(()),
        }
    }
}

/// What has become of a life on its way; for ever pending of one that stays.
async fn settled(life: &mut Life) -> Outcome {
    let Life::Changing(_, work) = life else { return std::future::pending().await };
    work.await.unwrap_or_else(|e| {
        tracing::error!("a change of this node ended badly: {e}");
        Outcome::of(Life::Failed(format!("a change of it ended badly: {e}")))
    })
}

fn refuse(order: Order, why: String) {
    let why = OrderError::Refused(why);
    match order {
        Order::Init(_, reply) => answer(reply, Err(why)),
        Order::Join(_, reply) => answer(reply, Err(why)),
        Order::Leave { reply, .. } | Order::Unlock(_, reply) => answer(reply, Err(why)),
        Order::Move => {}
    }
}
