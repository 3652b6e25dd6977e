//! The servers of a whole test run.

use std::ffi::OsString;

use anyhow::Result;

use crate::{MariaDb, Postgres, RabbitMq, mariadb, postgres, python, rabbitmq};

/// One server of each kind, for every test of a run that does not disturb it.
#[derive(Debug)]
pub struct SharedServers {
    mariadb: MariaDb,
    postgres: Postgres,
    rabbitmq: RabbitMq,
}

impl SharedServers {
    /// Starts them side by side.
    ///
    /// # Errors
    /// One of them is not installed (the error names the package) or does not come up (the error has its log).
    pub async fn start() -> Result<Self> {
        let started = tokio::try_join!(MariaDb::start(), Postgres::start(), RabbitMq::start_with_management());
        let (mariadb, postgres, rabbitmq) = started?;
        Ok(Self { mariadb, postgres, rabbitmq })
    }

    /// The environment in which the `shared()` constructors find them. It names the Python environment too, if there is one.
    ///
    /// # Errors
    /// The broker's directory cannot be written.
    pub fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let mut environment = vec![
            (mariadb::SHARED, format!("127.0.0.1:{}", self.mariadb.port()).into()),
            (postgres::SHARED, format!("127.0.0.1:{}", self.postgres.port()).into()),
            (rabbitmq::SHARED, self.rabbitmq.publish()?.into()),
        ];
        if let Ok(peer) = python::PythonPeer::find() {
            environment.push((python::VENV, peer.venv().into()));
        }
        Ok(environment)
    }
}
