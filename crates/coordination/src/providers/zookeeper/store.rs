//! Places in the queues, as nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt, stream};
use scoria_runtime::CancellationToken;
use zookeeper_client::{Acls, Client, CreateMode, CreateOptions, Error as ZkError, EventType};

use super::connection::{NO_AUTH, ZooKeeper};
use super::node;
use super::parents::{MARK, Parents};
use super::settings::Settings;
use crate::link::Link;
use crate::name::bare;
use crate::providers::queued::{Contender, Entered, Gone, QueueStore, Session, Ticket, have_it};
use crate::{Error, Features, Health, Holder, Listing, Options, Order, WaitPolicy};

/// How many requests of one listing are under way together.
const TOGETHER: usize = 64;
/// How long closing waits for the servers to have ended the session.
const CLOSING: Duration = Duration::from_secs(3);

/// The queues of one namespace.
#[derive(Debug)]
pub(super) struct ZooKeeperStore {
    settings: Settings,
    options: Options,
    host: Option<String>,
    link: Link<ZooKeeper>,
    generations: AtomicU64,
    closed: CancellationToken,
    parents: Parents,
}

impl ZooKeeperStore {
    pub(super) fn new(settings: Settings, options: &Options) -> Self {
        Self {
            parents: Parents::new(settings.locks.clone(), settings.remove_idle_after),
            settings,
            options: options.clone(),
            host: nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()),
            link: Link::new("zookeeper"),
            generations: AtomicU64::new(0),
            closed: CancellationToken::new(),
        }
    }

    /// Keeps a session, until the store is closed.
    pub(super) async fn keep_connected(self: Arc<Self>) {
        let connect = || {
            let generation = self.generations.fetch_add(1, Ordering::Relaxed) + 1;
            ZooKeeper::connect(&self.settings, self.options.heartbeat, generation)
        };
        self.link.supervise(&self.options, self.closed.clone(), connect).await;
    }

    /// Removes lock parents that nobody needs any more, until the store is closed.
    pub(super) async fn keep_tidy(self: Arc<Self>) {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => {}
            () = self.parents.keep_tidy(&self.link) => {}
        }
    }

    fn in_session(&self, session: &Session) -> Result<Arc<ZooKeeper>, Error> {
        let current = self.link.current()?;
        if current.generation == session.generation {
            Ok(current)
        } else {
            Err(Error::Unavailable("that ZooKeeper session has ended".to_owned()))
        }
    }

    fn parent(&self, name: &str) -> String {
        format!("{}/{name}", self.settings.locks)
    }

    fn with_acl(&self, mode: CreateMode) -> CreateOptions<'_> {
        mode.with_acls(Acls::from(&self.settings.acl[..]))
    }

    /// One round trip, unless the parent is of somebody else's making and used for the first time, or has been removed.
    async fn make(&self, session: &ZooKeeper, name: &str, ticket: &Ticket) -> Result<Entered, ZkError> {
        let (parent, prefix) = (self.parent(name), node::prefix(ticket));
        let data = node::data(&self.options.instance, self.host.as_deref(), &ticket.owner);
        let place = NewPlace { client: &session.client, path: format!("{parent}/{prefix}"), parent, prefix, data };
        let entered = loop {
            if self.parents.are_known(name) {
                match self.make_in_parent(&place).await {
                    // Somebody has removed it.
                    Err(ZkError::NoNode) => self.parents.forget(name),
                    entered => break entered?,
                }
            } else {
                match self.make_with_parent(&place).await {
                    Err(ZkError::NodeExists) => self.parents.used(name),
                    // The namespace has been removed.
                    Err(ZkError::NoNode) => {
                        session.client.mkdir(&self.settings.locks, &self.with_acl(CreateMode::Persistent)).await?;
                    }
                    entered => break entered?,
                }
            }
        };
        self.parents.used(name);
        Ok(entered)
    }

    /// Sends everything at once: the servers work off a session's requests in order, so the listing has what was made before.
    async fn make_in_parent(&self, place: &NewPlace<'_>) -> Result<Entered, ZkError> {
        let NewPlace { client, parent, prefix, path, data } = place;
        let own = client.create(path, data, &self.with_acl(CreateMode::EphemeralSequential));
        let children = client.list_children(parent);
        let (own, children) = futures_util::join!(own, children);
        let (stat, number) = own?;
        let node = format!("{prefix}{number}");
        let mut queue = node::queue(children?);
        let own = queue.iter_mut().find(|place| place.node == node).ok_or(ZkError::RuntimeInconsistent)?;
        own.token = u64::try_from(stat.czxid).ok();
        Ok(Entered { own: own.clone(), queue })
    }

    /// Both in one transaction, so that nobody else is in there yet: nothing to list. Servers up to 3.8 do not tell in a transaction
    /// which one it was, so the new node is asked for along with it; its number is known.
    async fn make_with_parent(&self, place: &NewPlace<'_>) -> Result<Entered, ZkError> {
        let NewPlace { client, parent, prefix, path, data } = place;
        let node = format!("{prefix}{}", node::FIRST);
        let mut both = client.new_multi_writer();
        both.add_create(parent, MARK, &self.with_acl(CreateMode::Persistent))?;
        both.add_create(path, data, &self.with_acl(CreateMode::EphemeralSequential))?;
        let (made, found) = (both.commit(), client.check_stat(&format!("{parent}/{node}")));
        let (made, found) = futures_util::join!(made, found);
        made?;
        // Not there any more: taken away at once, so the lock may be somebody else's.
        let stat = found?.ok_or(ZkError::RuntimeInconsistent)?;
        let own = node::contender(&node).ok_or(ZkError::RuntimeInconsistent)?;
        let own = Contender { token: u64::try_from(stat.czxid).ok(), ..own };
        Ok(Entered { queue: vec![own.clone()], own })
    }

    /// Everything below the locks. There may be very many: each request has its own limit. What goes away meanwhile is left out.
    async fn list_all(&self, session: &ZooKeeper) -> Result<Vec<Holder>, Error> {
        let children_of = async |path: &str| {
            let children = limited(session, async { found(session.client.list_children(path).await) }).await;
            children.map(Option::unwrap_or_default)
        };
        let names = children_of(&self.settings.locks).await?;
        let queues = stream::iter(names).map(async |name| {
            let queue = node::queue(children_of(&self.parent(&name)).await?);
            Ok::<_, Error>((name, queue))
        });
        let queues: Vec<_> = queues.buffer_unordered(TOGETHER).try_collect().await?;
        let mut places = Vec::new();
        for (name, queue) in &queues {
            let holders: Vec<_> = have_it(queue).map(|holder| holder.order).collect();
            places.extend(queue.iter().map(|place| (name.clone(), place.clone(), holders.contains(&place.order))));
        }
        let lines = stream::iter(places).map(async |(name, place, held): (String, Contender, bool)| {
            let path = format!("{}/{}", self.parent(&name), place.node);
            let data = limited(session, async { found(session.client.get_data(&path).await) }).await?;
            Ok::<_, Error>(data.map(|(data, stat)| {
                let token = u64::try_from(stat.czxid).ok().filter(|_| held);
                node::holder(bare(&name), &Contender { token, ..place }, held, &data, stat.ctime)
            }))
        });
        let lines: Vec<_> = lines.buffer_unordered(TOGETHER).try_collect().await?;
        Ok(lines.into_iter().flatten().collect())
    }
}

/// A place that is to be made.
struct NewPlace<'a> {
    client: &'a Client,
    /// The lock's node.
    parent: String,
    /// The new node's name without the number that the servers give it, and with the parent's path.
    prefix: String,
    path: String,
    data: Vec<u8>,
}

/// `None` for a node that is not there.
fn found<T>(result: Result<T, ZkError>) -> Result<Option<T>, ZkError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(ZkError::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A request within the session's limit: while there is no connection the client keeps it for as long as it takes.
async fn limited<T>(session: &ZooKeeper, request: impl Future<Output = Result<T, ZkError>>) -> Result<T, Error> {
    match tokio::time::timeout(session.limit, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ZkError::NoAuth)) => Err(Error::Unsupported(format!("ZooKeeper: {NO_AUTH}"))),
        Ok(Err(error @ (ZkError::QuotaExceeded | ZkError::InvalidAcl | ZkError::Unimplemented))) => {
            Err(Error::Unsupported(format!("ZooKeeper refuses: {error}")))
        }
        Ok(Err(error)) => Err(Error::Unavailable(format!("ZooKeeper: {error}"))),
        Err(_) => Err(Error::Unavailable(format!("ZooKeeper does not answer within {:?}", session.limit))),
    }
}

#[async_trait]
impl QueueStore for ZooKeeperStore {
    fn kind(&self) -> &'static str {
        "zookeeper"
    }

    fn instance(&self) -> &str {
        &self.options.instance
    }

    fn features(&self) -> Features {
        Features { token: true, order: Order::All, shared: true, listing: Listing::All }
    }

    fn health(&self) -> Health {
        match self.link.current() {
            Ok(session) => session.health(),
            Err(_) => self.link.health(),
        }
    }

    fn answers_on_heart(&self) -> bool {
        true
    }

    async fn session(&self, wait: WaitPolicy) -> Result<Session, Error> {
        let session = self.link.ready(wait).await?;
        Ok(Session { lease: session.lease.clone(), generation: session.generation })
    }

    async fn enter(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Entered, Error> {
        let session = self.in_session(session)?;
        limited(&session, self.make(&session, name, ticket)).await
    }

    async fn queue(&self, session: &Session, name: &str) -> Result<Vec<Contender>, Error> {
        let session = self.in_session(session)?;
        let children = limited(&session, session.client.list_children(&self.parent(name))).await;
        Ok(node::queue(children?))
    }

    /// The server may lag behind the one that was asked to make the place: it has to catch up first. What was asked over a
    /// connection that has been replaced is refused by the leader from then on.
    async fn find(&self, session: &Session, name: &str, ticket: &Ticket) -> Result<Option<Contender>, Error> {
        let session = self.in_session(session)?;
        let (client, parent) = (&session.client, self.parent(name));
        let look = async {
            let (sync, children) = (client.sync(&parent), client.list_children(&parent));
            let (sync, children) = futures_util::join!(sync, children);
            sync?;
            let queue = node::queue(found(children)?.unwrap_or_default());
            let Some(own) = queue.into_iter().find(|place| place.node.starts_with(&ticket.id)) else { return Ok(None) };
            let stat = client.check_stat(&format!("{parent}/{}", own.node)).await?;
            Ok(stat.map(|stat| Contender { token: u64::try_from(stat.czxid).ok(), ..own }))
        };
        limited(&session, look).await
    }

    /// Watches the data and not the existence: that leaves no watch behind on a node that has gone already.
    async fn gone(&self, session: &Session, name: &str, contender: &Contender) -> Result<Gone, Error> {
        let session = self.in_session(session)?;
        let path = format!("{}/{}", self.parent(name), contender.node);
        let watch = async { found(session.client.get_and_watch_data(&path).await) };
        let Some((_, _, watcher)) = limited(&session, watch).await? else { return Ok(Gone::Surely) };
        // The watch must not keep an ended session open.
        drop(session);
        match watcher.changed().await.event_type {
            EventType::Session => Err(Error::Unavailable("the ZooKeeper session has ended".to_owned())),
            EventType::NodeDeleted => Ok(Gone::Surely),
            _ => Ok(Gone::Perhaps),
        }
    }

    async fn leave(&self, session: &Session, name: &str, own: &Contender) -> Result<bool, Error> {
        let session = self.in_session(session)?;
        let path = format!("{}/{}", self.parent(name), own.node);
        let left = limited(&session, async { found(session.client.delete(&path, None).await) }).await?;
        self.parents.used(name);
        Ok(left.is_some())
    }

    async fn list(&self) -> Result<Vec<Holder>, Error> {
        let session = self.link.current()?;
        self.list_all(&session).await
    }

    async fn break_lock(&self, name: &str) -> Result<bool, Error> {
        let session = self.link.current()?;
        let (client, parent) = (&session.client, self.parent(name));
        let broken = async {
            let queue = node::queue(found(client.list_children(&parent).await)?.unwrap_or_default());
            let mut broken = false;
            for holder in have_it(&queue) {
                broken |= found(client.delete(&format!("{parent}/{}", holder.node), None).await)?.is_some();
            }
            Ok(broken)
        };
        limited(&session, broken).await
    }

    async fn close(&self) {
        let session = self.link.current();
        self.closed.cancel();
        let Ok(session) = session else { return };
        session.lease.lose("closed");
        let mut states = session.client.state_watcher();
        let mut state = states.state();
        // The servers are told when the last reference has gone.
        drop(session);
        let ended = async {
            while !state.is_terminated() {
                state = states.changed().await;
            }
        };
        if tokio::time::timeout(CLOSING, ended).await.is_err() {
            tracing::warn!("ZooKeeper did not confirm the end of the session: it ends with its timeout");
        }
    }
}
