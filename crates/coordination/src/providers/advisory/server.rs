//! What these locks need of a database server, and the connection that tells how it is.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::ANSWER_WITHIN;
use crate::Error;
use crate::link::Connection;

/// A database server whose locks hang on connections.
#[async_trait]
pub(in super::super) trait Server: Debug + Send + Sync + 'static {
    /// A connection.
    type Session: Session;
    /// Scheme of its URL.
    fn kind(&self) -> &'static str;
    /// What the server makes of a name: names with one key are one lock there.
    fn key(&self, name: &str) -> Result<String, Error>;
    /// How long the server keeps a connection that says nothing.
    fn session_timeout(&self) -> Duration;
    /// A new connection, on which the server keeps to [`Server::session_timeout`].
    async fn connect(&self) -> Result<Self::Session, Error>;
    /// Looks whether locks of this server reach as far as they should; the error says why not, and the remedy.
    async fn inspect(&self, session: &mut Self::Session) -> Result<(), Error>;
}

/// A connection. Dropping it closes it, which frees what it holds. After an error it is of no use any more.
#[async_trait]
pub(in super::super) trait Session: Debug + Send + 'static {
    /// Takes the lock, waiting at the server for at most `wait`; `None` is one try. One round trip.
    async fn lock(&mut self, name: &str, wait: Option<Duration>) -> Result<bool, Error>;
    /// Gives it back; false when it was not held. One round trip.
    async fn unlock(&mut self, name: &str) -> Result<bool, Error>;
    /// Keeps the connection alive; with a name, whether the connection still has that lock. One round trip.
    async fn beat(&mut self, held: Option<&str>) -> Result<bool, Error>;
    /// Ends the connection that holds the lock, whosever it is; false when there is none.
    async fn break_lock(&mut self, name: &str) -> Result<bool, Error>;
    /// Says good-bye.
    async fn close(self);
}

/// The connection that tells how the server is: it holds no lock.
#[derive(Debug)]
pub(super) struct Probe<S> {
    session: Mutex<S>,
    beat: Duration,
}

impl<S: Session> Probe<S> {
    pub(super) async fn connect(server: &impl Server<Session = S>, beat: Duration) -> Result<Self, Error> {
        let mut session = server.connect().await?;
        server.inspect(&mut session).await?;
        Ok(Self { session: Mutex::new(session), beat })
    }
}

impl<S: Session> Connection for Probe<S> {
    async fn ended(&self) -> String {
        let mut session = self.session.lock().await;
        loop {
            tokio::time::sleep(self.beat).await;
            match timeout(ANSWER_WITHIN, session.beat(None)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_) => return super::silent().to_string(),
            }
        }
    }
}
