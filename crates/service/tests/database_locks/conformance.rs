//! The suite that every lock service passes.

use std::sync::Arc;

use async_trait::async_trait;
use scoria_coordination::Provider;
use scoria_coordination::conformance::Subject;

use scoria_model::LockTable;

use crate::place::{Place, table};
use crate::provider;

/// How many names the suite uses at most in one case.
const NAMES: usize = 96;

struct Table(Place);

#[async_trait]
impl Subject for Table {
    async fn instance(&self, name: &str) -> Arc<dyn Provider> {
        provider(&self.0.url, name, "database://").await
    }

    async fn lose(&self, name: &str) {
        assert!(table(&self.0.url).break_lock(&format!("cinder-{name}")).await.unwrap());
    }

    /// SQLite has one writer at a time, and those who find another one there sleep.
    fn pairs_at_once(&self) -> usize {
        if self.0.is_sqlite() { 4 } else { 32 }
    }

    /// Rows of freed locks go a while later; there is one for each name.
    async fn leftovers(&self) -> Vec<String> {
        assert!(self.0.rows() <= NAMES, "one row per name");
        table(&self.0.url).list().await.unwrap().into_iter().map(|row| row.wish.name).collect()
    }
}

mod sqlite {
    use super::*;

    scoria_coordination::conformance_suite!(Table(Place::sqlite().await));
}

mod mariadb {
    use super::*;

    scoria_coordination::conformance_suite!(Table(Place::mariadb().await));
}

mod postgresql {
    use super::*;

    scoria_coordination::conformance_suite!(Table(Place::postgresql().await));
}
