//! Whose tables these are, and whether this release knows them.

use sea_query::Query;

use crate::pool::Pool;
use crate::statement::col;
use crate::{Database, Error, Result};

/// Revisions of Cinder's schema (`cinder/db/migrations/versions`) that this release was tried with: 29.0.0's.
pub const CINDER_REVISIONS: &[&str] = &["9c74c1c6971f"];

/// Who made the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaOrigin {
    /// `cinder-manage db sync`: we create and alter nothing in it.
    Cinder {
        /// `alembic_version.version_num`.
        revision: String,
    },
    /// `scoria db sync`, from `migrations/`.
    Scoria {
        /// The last migration.
        version: i64,
    },
}

/// The migration that makes the table of locks, and it alone.
const LOCKS: i64 = 2;

static SQLITE: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/sqlite");
static MYSQL: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/mysql");
static POSTGRES: sqlx::migrate::Migrator = sqlx::migrate!("../../migrations/postgresql");

impl Database {
    fn migrator(&self) -> &'static sqlx::migrate::Migrator {
        match &self.inner.pool {
            Pool::Sqlite(_) => &SQLITE,
            Pool::MySql(_) => &MYSQL,
            Pool::Postgres(_) => &POSTGRES,
        }
    }

    /// Whose tables are there, if any are.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn version(&self) -> Result<Option<SchemaOrigin>> {
        let mut alembic = Query::select();
        alembic.column("version_num").from("alembic_version");
        let mut own = Query::select();
        own.expr(sea_query::ExprTrait::max(col("version"))).from("_sqlx_migrations");
        self.retry("version", |_| async {
            if let Some(row) = if_there(self.fetch_optional::<(String,)>(&alembic).await)? {
                return Ok(row.map(|(revision,)| SchemaOrigin::Cinder { revision }));
            }
            let row = if_there(self.fetch_optional::<(Option<i64>,)>(&own).await)?.flatten();
            Ok(row.and_then(|(version,)| version).map(|version| SchemaOrigin::Scoria { version }))
        })
        .await
    }

    /// Whose tables are there, if this release can work with them.
    ///
    /// # Errors
    /// `Schema` with the remedy when there are none, or of an unknown revision; `Unavailable`.
    pub async fn check_schema(&self) -> Result<SchemaOrigin> {
        let newest = self.migrator().iter().map(|migration| migration.version).max().unwrap_or_default();
        match self.version().await? {
            None => Err(Error::Schema(
                "the database has no tables: run 'cinder-manage db sync', or 'scoria db sync' for a database without a Cinder"
                    .to_owned(),
            )),
            Some(SchemaOrigin::Cinder { revision }) if !CINDER_REVISIONS.contains(&revision.as_str()) => {
                Err(Error::Schema(format!(
                    "the database is at Cinder's revision {revision}, this release of Scoria knows {}: run \
                     'cinder-manage db sync' of that release of Cinder, or install the Scoria that goes with yours",
                    CINDER_REVISIONS.join(", ")
                )))
            }
            Some(SchemaOrigin::Scoria { version }) if version < newest => Err(Error::Schema(format!(
                "the database is at Scoria's version {version}, this release wants {newest}: run 'scoria db sync'"
            ))),
            Some(SchemaOrigin::Scoria { version }) if version > newest => Err(Error::Schema(format!(
                "the database is at Scoria's version {version}, this release knows only {newest}: install a newer Scoria"
            ))),
            Some(origin) => Ok(origin),
        }
    }

    /// Makes or updates the tables of a database that has no Cinder, with the rows a fresh one starts with (default type,
    /// default quotas). May be run again at any time.
    ///
    /// # Errors
    /// `Schema` when the tables are Cinder's, or the migrations do not apply; `Unavailable`.
    pub async fn sync(&self) -> Result<SchemaOrigin> {
        if let Some(SchemaOrigin::Cinder { revision }) = self.version().await? {
            return Err(Error::Schema(format!(
                "this database belongs to Cinder (revision {revision}) and is left alone: run 'cinder-manage db sync' instead"
            )));
        }
        let migrator = self.migrator();
        let run = match &self.inner.pool {
            Pool::Sqlite(pool) => migrator.run(pool).await,
            Pool::MySql(pool) => migrator.run(pool).await,
            Pool::Postgres(pool) => migrator.run(pool).await,
        };
        run.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error) => Error::from(error),
            other => Error::Schema(format!("the migrations of the database cannot be applied: {other}")),
        })?;
        self.check_schema().await
    }

    /// Makes the table in which `database://` keeps its locks, also in a database that cinder-manage made; there it is the only
    /// thing that is made, and nothing is altered. May be run again at any time.
    ///
    /// # Errors
    /// `Schema` when the database has no tables at all, or its account may not make one; `Unavailable`.
    pub async fn sync_locks(&self) -> Result<SchemaOrigin> {
        let origin = match self.version().await? {
            Some(origin @ SchemaOrigin::Cinder { .. }) => origin,
            Some(SchemaOrigin::Scoria { .. }) => return self.sync().await,
            None => return self.check_schema().await,
        };
        let there = self.fetch_optional::<(i64,)>(&crate::lock_rows::check(self.dialect())).await;
        if if_there(there.map(Some))?.is_some() {
            return Ok(origin);
        }
        let migration = self.migrator().iter().find(|migration| migration.version == LOCKS);
        let sql = migration.map(|migration| migration.sql.clone()).expect("embedded, and named by its number");
        match &self.inner.pool {
            Pool::Sqlite(pool) => sqlx::raw_sql(sql).execute(pool).await.map(drop),
            Pool::MySql(pool) => sqlx::raw_sql(sql).execute(pool).await.map(drop),
            Pool::Postgres(pool) => sqlx::raw_sql(sql).execute(pool).await.map(drop),
        }?;
        Ok(origin)
    }
}

/// `None` when the table is not there.
fn if_there<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(rows) => Ok(Some(rows)),
        Err(Error::Schema(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
