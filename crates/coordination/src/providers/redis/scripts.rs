//! The scripts that the server runs for us: each is one round trip and happens as a whole.

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Script};

/// All of them, loaded when a connection is made.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) give_back: Script,
    pub(super) find: Script,
    pub(super) break_lock: Script,
    pub(super) extend: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            take: Script::new(concat!(include_str!("common.lua"), include_str!("take.lua"))),
            give_back: Script::new(concat!(include_str!("common.lua"), include_str!("give_back.lua"))),
            find: Script::new(concat!(include_str!("common.lua"), include_str!("find.lua"))),
            break_lock: Script::new(concat!(include_str!("common.lua"), include_str!("break_lock.lua"))),
            extend: Script::new(include_str!("extend.lua")),
        }
    }

    /// Makes them known to the server, so that it need not happen under a lock.
    pub(super) async fn load(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        for script in [&self.take, &self.give_back, &self.find, &self.break_lock, &self.extend] {
            script.load_async(connection).await?;
        }
        Ok(())
    }
}
