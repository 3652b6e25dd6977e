//! The scripts that the server runs for us: each is one round trip and happens as a whole.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind};

/// All of them, loaded when a connection is made.
#[derive(Debug)]
pub(super) struct Scripts {
    pub(super) take: Script,
    pub(super) give_back: Script,
    pub(super) find: Script,
    pub(super) break_lock: Script,
    pub(super) extend: Script,
}

/// A script made of parts of this directory, one after the other.
macro_rules! script {
    ($($part:literal),*) => { Script::new(concat!($(include_str!($part)),*)) };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            take: script!("record.lua", "take_if_free.lua", "line.lua", "take.lua"),
            give_back: script!("record.lua", "give_back_if_alone.lua", "line.lua", "give_back.lua"),
            find: script!("record.lua", "find.lua"),
            break_lock: script!("record.lua", "line.lua", "break_lock.lua"),
            extend: script!("extend.lua"),
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

/// A call of a script, to which so many keys are to be added and then the arguments, some `bytes` in all: memory that grows step by
/// step would be a quarter of our work for a free lock.
pub(super) fn call(script: &Script, keys: usize, bytes: usize) -> Cmd {
    /// The command, the script's hash and the number of keys.
    const BEFORE: usize = 64;
    let mut call = Cmd::with_capacity(8 + keys, BEFORE + bytes);
    call.arg("EVALSHA").arg(script.get_hash()).arg(keys);
    call
}

/// Runs it. A server that has forgotten the script (`SCRIPT FLUSH`) is told it again.
pub(super) async fn run<T: FromRedisValue>(
    script: &Script,
    call: &Cmd,
    connection: &mut MultiplexedConnection,
) -> Result<T, RedisError> {
    match call.query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            script.load_async(connection).await?;
            call.query_async(connection).await
        }
        answer => answer,
    }
}
