//! The suite that every lock service passes.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_coordination::Provider;
use scoria_coordination::conformance::Subject;
use scoria_testkit::{MariaDb, Postgres};

use crate::locks::until;
use crate::{end_mysql_holder, end_postgres_holder, open, postgres_locks};

/// Named locks are the whole server's, so each case has one of its own.
struct MySql(MariaDb);

#[async_trait]
impl Subject for MySql {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        open(&self.0.sqlx_url(), name).await
    }

    async fn lose(&self, name: &str) {
        end_mysql_holder(&self.0, name);
        let freed = format!("SELECT IS_FREE_LOCK('cinder-{name}')");
        until("freed", || self.0.execute(&freed).unwrap().trim() == "1").await;
    }

    /// As many as there are connections that are kept for the next lock.
    fn pairs_at_once(&self) -> usize {
        4
    }

    async fn leftovers(&self) -> Vec<String> {
        let sql = "SELECT CONCAT(ID, ' ', COALESCE(INFO, '')) FROM information_schema.PROCESSLIST \
                   WHERE USER = 'scoria' AND ID <> CONNECTION_ID()";
        // The server notices the end of a connection a moment later.
        let left = || self.0.execute(sql).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
        until("no connections", || left().is_empty()).await;
        left()
    }
}

struct Advisory(Postgres);

#[async_trait]
impl Subject for Advisory {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        open(&self.0.sqlx_url().replace("postgres://", "postgresql://"), name).await
    }

    async fn lose(&self, name: &str) {
        end_postgres_holder(&self.0, name);
        let count = format!("SELECT count(*) {}", postgres_locks(name));
        until("freed", || self.0.execute(&count).unwrap().trim() == "0").await;
    }

    /// As many as there are connections that are kept for the next lock.
    fn pairs_at_once(&self) -> usize {
        4
    }

    async fn leftovers(&self) -> Vec<String> {
        let sql =
            "SELECT pid, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let left = || {
            let rows = self.0.execute(sql).unwrap();
            rows.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        until("no connections", || left().is_empty()).await;
        left()
    }
}

mod mysql {
    use super::*;

    scoria_coordination::conformance_suite!(MySql(MariaDb::start().await.unwrap()));
}

mod postgresql {
    use super::*;

    scoria_coordination::conformance_suite!(Advisory(Postgres::shared().await.unwrap()));
}
