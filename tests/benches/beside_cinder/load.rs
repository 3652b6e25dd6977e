//! The load: requests cast straight to a service's own queue, so many at a time, and when the database says that each is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use scoria_model::object::RequestSpec;
use scoria_model::{RequestContext, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus, VolumeType};
use scoria_rpc::providers::amqp::{AmqpOptions, AmqpTransport, BrokerHost};
use scoria_rpc::{Client, Transport};
use scoria_testkit::{BACKEND, MariaDb, PROJECT, RabbitMq};
use sqlx::{MySqlPool, QueryBuilder, Row};

/// No request takes longer, with either service.
const PATIENCE: Duration = Duration::from_secs(180);
/// Rows per statement.
const CHUNK: usize = 500;

/// What is asked for, with the rows as cinder-api leaves them.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// A volume, blank or from its source.
    Create(Volume),
    /// A snapshot of a volume.
    Snapshot(Volume, Snapshot),
    /// The end of a snapshot.
    DeleteSnapshot(Volume, Snapshot),
    /// The end of a volume.
    Delete(Volume),
}

impl Ask {
    fn id(&self) -> &str {
        match self {
            Self::Create(volume) | Self::Delete(volume) => volume.id.as_str(),
            Self::Snapshot(_, snapshot) | Self::DeleteSnapshot(_, snapshot) => snapshot.id.as_str(),
        }
    }

    fn is_snapshot(&self) -> bool {
        matches!(self, Self::Snapshot(..) | Self::DeleteSnapshot(..))
    }
}

/// Time of each request from just before the cast to when its row was seen done, and of all together.
#[derive(Debug)]
pub(crate) struct Times {
    pub(crate) each: Vec<Duration>,
    pub(crate) all: Duration,
}

/// The caller that both services have: cinder-api's part, without cinder-api.
pub(crate) struct Load {
    pub(crate) database: MySqlPool,
    transport: Arc<AmqpTransport>,
    client: Client,
    context: RequestContext,
    volume_type: VolumeType,
}

impl Load {
    /// Connects to database and broker. Cinder's tables must be there.
    pub(crate) async fn connect(database: &MariaDb, broker: &RabbitMq) -> Result<Self> {
        let options = AmqpOptions {
            hosts: vec![BrokerHost::new("127.0.0.1", broker.port(), "guest", "guest")],
            virtual_host: broker.vhost().to_owned(),
            ..AmqpOptions::default()
        };
        let transport = AmqpTransport::connect(options)?;
        let client = Client::new(transport.clone(), Duration::from_secs(60));
        let mut context = RequestContext::user("admin", PROJECT);
        context.is_admin = true;
        context.roles = vec!["admin".to_owned()];
        let database = MySqlPool::connect(&database.sqlx_url()).await?;
        let id: String =
            sqlx::query_scalar("SELECT id FROM volume_types WHERE name = '__DEFAULT__'").fetch_one(&database).await?;
        let volume_type = VolumeType {
            id: id.parse()?,
            name: "__DEFAULT__".to_owned(),
            description: Some("Default Volume Type".to_owned()),
            is_public: true,
            extra_specs: Default::default(),
            qos_specs_id: None,
            created_at: None,
            updated_at: None,
        };
        Ok(Self { database, transport, client, context, volume_type })
    }

    /// Ends the connections in good order.
    pub(crate) async fn close(self) {
        self.transport.close().await;
        self.database.close().await;
    }

    /// Rows of new volumes of 1 GiB on this host, each from its source where there are sources.
    pub(crate) async fn new_volumes(
        &self,
        host: &str,
        count: usize,
        sources: Option<&[Volume]>,
    ) -> Result<Vec<Volume>> {
        let make = |number: usize| Volume {
            user_id: Some("admin".to_owned()),
            project_id: Some(PROJECT.to_owned()),
            host: Some(format!("{host}@{BACKEND}#{BACKEND}")),
            availability_zone: Some("nova".to_owned()),
            display_name: Some(format!("bench-{number}")),
            source_volid: sources.map(|sources| sources[number].id.clone()),
            volume_type_id: Some(self.volume_type.id.clone()),
            volume_type: Some(self.volume_type.clone()),
            ..Volume::new(VolumeId::random(), 1)
        };
        let volumes: Vec<_> = (0..count).map(make).collect();
        for chunk in volumes.chunks(CHUNK) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO volumes (id, user_id, project_id, host, availability_zone, display_name, source_volid, \
                 volume_type_id, size, status, attach_status, bootable, multiattach, shared_targets, use_quota, \
                 created_at, deleted) ",
            );
            insert.push_values(chunk, |mut row, volume| {
                row.push_bind(volume.id.as_str())
                    .push_bind(&volume.user_id)
                    .push_bind(&volume.project_id)
                    .push_bind(&volume.host)
                    .push_bind(&volume.availability_zone)
                    .push_bind(&volume.display_name)
                    .push_bind(volume.source_volid.as_ref().map(VolumeId::as_str))
                    .push_bind(self.volume_type.id.as_str())
                    .push("1, 'creating', 'detached', 0, 0, 1, 1, UTC_TIMESTAMP(), 0");
            });
            insert.build().execute(&self.database).await?;
        }
        self.new_workers("Volume", "creating", volumes.iter().map(|volume| volume.id.as_str())).await?;
        Ok(volumes)
    }

    /// Rows of new snapshots, one of each volume.
    pub(crate) async fn new_snapshots(&self, volumes: &[Volume]) -> Result<Vec<Snapshot>> {
        let make = |volume: &Volume| Snapshot {
            user_id: volume.user_id.clone(),
            project_id: volume.project_id.clone(),
            display_name: volume.display_name.clone(),
            volume_type_id: volume.volume_type_id.clone(),
            ..Snapshot::new(SnapshotId::random(), volume.id.clone(), volume.size)
        };
        let snapshots: Vec<_> = volumes.iter().map(make).collect();
        for chunk in snapshots.chunks(CHUNK) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO snapshots (id, volume_id, user_id, project_id, display_name, volume_type_id, \
                 volume_size, status, progress, use_quota, created_at, deleted) ",
            );
            insert.push_values(chunk, |mut row, snapshot| {
                row.push_bind(snapshot.id.as_str())
                    .push_bind(snapshot.volume_id.as_str())
                    .push_bind(&snapshot.user_id)
                    .push_bind(&snapshot.project_id)
                    .push_bind(&snapshot.display_name)
                    .push_bind(self.volume_type.id.as_str())
                    .push("1, 'creating', '0%', 1, UTC_TIMESTAMP(), 0");
            });
            insert.build().execute(&self.database).await?;
        }
        self.new_workers("Snapshot", "creating", snapshots.iter().map(|snapshot| snapshot.id.as_str())).await?;
        Ok(snapshots)
    }

    /// Marks volumes for deletion, as the API does.
    pub(crate) async fn mark_volumes(&self, volumes: &mut [Volume]) -> Result<()> {
        let set = "UPDATE volumes SET previous_status = status, status = 'deleting', updated_at = UTC_TIMESTAMP()";
        self.update(set, volumes.iter().map(|volume| volume.id.as_str())).await?;
        for volume in volumes.iter_mut() {
            volume.status = VolumeStatus::Deleting;
        }
        self.new_workers("Volume", "deleting", volumes.iter().map(|volume| volume.id.as_str())).await
    }

    /// Marks snapshots for deletion, as the API does.
    pub(crate) async fn mark_snapshots(&self, snapshots: &mut [Snapshot]) -> Result<()> {
        let set = "UPDATE snapshots SET status = 'deleting', updated_at = UTC_TIMESTAMP()";
        self.update(set, snapshots.iter().map(|snapshot| snapshot.id.as_str())).await?;
        for snapshot in snapshots.iter_mut() {
            snapshot.status = SnapshotStatus::Deleting;
        }
        Ok(())
    }

    async fn update(&self, set: &str, ids: impl Iterator<Item = &str>) -> Result<()> {
        let mut update = QueryBuilder::new(format!("{set} WHERE id IN ("));
        let mut list = update.separated(", ");
        // A list must not be empty.
        for id in ids.chain([""]) {
            list.push_bind(id);
        }
        update.push(")").build().execute(&self.database).await?;
        Ok(())
    }

    /// The rows by which an interrupted request is found again: the API makes them before it casts.
    async fn new_workers(&self, kind: &str, status: &str, ids: impl Iterator<Item = &str>) -> Result<()> {
        let ids: Vec<_> = ids.collect();
        for chunk in ids.chunks(CHUNK) {
            let mut insert = QueryBuilder::new(
                "INSERT INTO workers (resource_type, resource_id, status, race_preventer, created_at, updated_at, \
                 deleted) ",
            );
            insert.push_values(chunk, |mut row, id| {
                row.push_bind(kind).push_bind(*id).push_bind(status).push("0, UTC_TIMESTAMP(), UTC_TIMESTAMP(6), 0");
            });
            insert.build().execute(&self.database).await?;
        }
        Ok(())
    }

    async fn cast(&self, ask: &Ask) -> Result<()> {
        let (client, context) = (&self.client, &self.context);
        match ask {
            Ask::Create(volume) => {
                let spec = RequestSpec::for_volume(volume);
                client.create_volume(context, volume, Some(&spec), false).await?;
            }
            Ask::Snapshot(volume, snapshot) => client.create_snapshot(context, volume, snapshot).await?,
            Ask::DeleteSnapshot(volume, snapshot) => client.delete_snapshot(context, volume, snapshot, false).await?,
            Ask::Delete(volume) => client.delete_volume(context, volume, false, false).await?,
        }
        Ok(())
    }

    /// Has all of them done, `concurrency` in flight at a time.
    pub(crate) async fn run(&self, asks: &[Ask], concurrency: usize) -> Result<Times> {
        // One query for all in flight, often enough to see a quick service's work, seldom enough not to be the load itself.
        let tick = Duration::from_millis(if concurrency == 1 { 2 } else { 5 });
        let snapshots = asks.first().is_some_and(Ask::is_snapshot);
        let (mut waiting, mut in_flight, mut each) = (asks.iter(), HashMap::new(), Vec::with_capacity(asks.len()));
        let began = Instant::now();
        while each.len() < asks.len() {
            let next: Vec<_> = waiting.by_ref().take(concurrency - in_flight.len()).collect();
            in_flight.extend(next.iter().map(|ask| (ask.id(), (Instant::now(), *ask))));
            try_join_all(next.into_iter().map(|ask| self.cast(ask))).await?;
            tokio::time::sleep(tick).await;
            for (id, status, deleted) in self.rows(snapshots, in_flight.keys().copied()).await? {
                let (at, ask) = in_flight[id.as_str()];
                if is_done(ask, &status, deleted)? {
                    each.push(at.elapsed());
                    in_flight.remove(id.as_str());
                }
            }
            let late = in_flight.iter().find(|(_, (at, _))| at.elapsed() > PATIENCE);
            ensure!(late.is_none(), "not done within {PATIENCE:?}: {late:?}");
        }
        Ok(Times { each, all: began.elapsed() })
    }

    async fn rows(&self, snapshots: bool, ids: impl Iterator<Item = &str>) -> Result<Vec<(String, String, bool)>> {
        let table = if snapshots { "snapshots" } else { "volumes" };
        let mut select =
            QueryBuilder::new(format!("SELECT id, status, CAST(deleted AS SIGNED) FROM {table} WHERE id IN ("));
        let mut list = select.separated(", ");
        for id in ids {
            list.push_bind(id);
        }
        let rows = select.push(")").build().fetch_all(&self.database).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<i64, _>(2)? != 0))).collect()
    }

    /// How many services of this name have a row.
    pub(crate) async fn has_service_row(&self, host: &str) -> Result<bool> {
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM services WHERE host = ?")
            .bind(format!("{host}@{BACKEND}"))
            .fetch_one(&self.database)
            .await
            .context("services")?;
        Ok(count > 0)
    }

    /// Forgets a service that has ended, so that its next start shows.
    pub(crate) async fn forget_service(&self, host: &str) -> Result<()> {
        let delete = sqlx::query("DELETE FROM services WHERE host = ?").bind(format!("{host}@{BACKEND}"));
        delete.execute(&self.database).await?;
        Ok(())
    }
}

fn is_done(ask: &Ask, status: &str, deleted: bool) -> Result<bool> {
    if status.starts_with("error") {
        bail!("{} became {status}: {ask:?}", ask.id());
    }
    Ok(match ask {
        Ask::Create(_) | Ask::Snapshot(..) => status == "available",
        Ask::DeleteSnapshot(..) | Ask::Delete(_) => deleted,
    })
}
