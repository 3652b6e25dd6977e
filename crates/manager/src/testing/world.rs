//! A small world for one operation: SQLite, locks in the process, a directory as the share, a broker in the process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use scoria_compute::Compute;
use scoria_coordination::providers::MemoryProvider;
use scoria_coordination::{Coordinator, LockRequest, LockSet};
use scoria_db::Database;
use scoria_drivers::{LocalDriver, LocalOptions};
use scoria_model::{RequestContext, Snapshot, SnapshotId, SnapshotStatus, Volume, VolumeId, VolumeStatus, object};
use scoria_rpc::Request;
use scoria_rpc::providers::memory::MemoryBroker;
use scoria_runtime::{Deadline, Executor, Tasks};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::clock::ClockedProvider;
use super::exports::Exporting;
use super::nova::ServersWithNova;
use crate::failure::Failure;
use crate::held::Job;
use crate::manager::{Parts, VolumeManager};
use crate::operations;
use crate::options::{LogControl, Options};

pub(crate) const PROJECT: &str = "11111111111111111111111111111111";

#[derive(Debug)]
struct NoLog;

impl LogControl for NoLog {
    fn set(&self, _prefix: &str, _level: &str) -> Result<(), String> {
        Ok(())
    }
    fn get(&self, _prefix: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

pub(crate) struct World {
    pub(crate) manager: Arc<VolumeManager>,
    pub(crate) db: Database,
    pub(crate) broker: MemoryBroker,
    pub(crate) driver: Arc<Exporting>,
    pub(crate) nova: Arc<ServersWithNova>,
    locks: Coordinator,
    clocked: ClockedProvider,
    provider: Arc<MemoryProvider>,
    dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A world whose manager has other options than the usual ones.
    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::started(Self::not_started(change).await).await
    }

    /// A world without Nova.
    pub(crate) async fn without_nova() -> Self {
        Self::started(Self::assemble(|_| {}, false).await).await
    }

    async fn started(world: Self) -> Self {
        world.manager.start().await.unwrap();
        assert!(world.manager.is_driver_ready());
        world
    }

    pub(crate) async fn not_started(change: impl FnOnce(&mut Options)) -> Self {
        Self::assemble(change, true).await
    }

    async fn assemble(change: impl FnOnce(&mut Options), with_nova: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite:///{}", dir.path().join("scoria.sqlite").display());
        let db = Database::connect(&scoria_db::Options::new(url)).await.unwrap();
        db.sync().await.unwrap();
        let share = dir.path().join("share");
        std::fs::create_dir(&share).unwrap();
        let executor = Executor::new(None, std::time::Duration::from_secs(60));
        let driver = Arc::new(Exporting::new(LocalDriver::new(LocalOptions::new(&share), executor).unwrap()));
        let nova = Arc::new(ServersWithNova::new(db.clone(), share));
        let provider = Arc::new(MemoryProvider::new());
        let clocked = ClockedProvider::new(provider.clone());
        let locks = Coordinator::new(Arc::new(clocked.clone()));
        let broker = MemoryBroker::recording();
        let mut options = Options { messages_die_with_us: true, ..Options::new("node", "local") };
        change(&mut options);
        let manager = VolumeManager::new(Parts {
            options,
            db: db.clone(),
            locks: locks.clone(),
            driver: driver.clone(),
            compute: with_nova.then(|| nova.clone() as Arc<dyn Compute>),
            transport: broker.transport(),
            log: Arc::new(NoLog),
            tasks: Tasks::new(),
        });
        let losing = provider.clone();
        manager.script.on_lock_loss(move |name| {
            assert!(losing.lose(name), "{name} was held");
        });
        let ending = clocked.clone();
        manager.script.on_lease_end(move || ending.leases_are_over());
        Self { manager, db, broker, driver, nova, locks, clocked, provider, dir }
    }

    /// Locks that another instance takes on the same lock service.
    pub(crate) async fn other_instance(&self, request: LockRequest) -> LockSet {
        Coordinator::new(Arc::new(self.provider.another("other"))).acquire(request).await.unwrap()
    }

    /// All locks that are held are over by the clock, and nobody has been told.
    pub(crate) fn end_leases(&self) {
        self.clocked.leases_are_over();
    }

    /// Cuts the manager off from the lock service, or lets it reach it again.
    pub(crate) fn set_locks_down(&self, reason: Option<&str>) {
        self.provider.set_down(reason);
    }

    /// A second connection to the database, for mischief.
    pub(crate) async fn raw_database(&self) -> sqlx::SqliteConnection {
        let path = self.dir.path().join("scoria.sqlite");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
        sqlx::ConnectOptions::connect(&options).await.unwrap()
    }

    /// How many locks were ever taken: the memory provider numbers them.
    pub(crate) fn locks_taken(&self) -> u64 {
        self.provider.taken()
    }

    /// An interrupted operation keeps no lock.
    pub(crate) async fn no_lock_is_held(&self) {
        // A task that was handed the locks to give them back may need a moment.
        tokio::task::yield_now().await;
        let holders = self.locks.holders().await.unwrap();
        assert!(holders.is_empty(), "locks left: {holders:?}");
    }

    /// Runs a request. One that is interrupted is left as by a process that died.
    pub(crate) async fn run(&self, request: &Request) -> Result<Value, Failure> {
        operations::run(&self.manager, &self.job(request, false), request).await
    }

    /// A request in hand, `again` if not for the first time.
    pub(crate) fn job(&self, request: &Request, again: bool) -> Job {
        let key = crate::args::key(&request.args).unwrap_or_default();
        let entry = self.manager.running.enter(&request.method, &key, None).unwrap();
        let method = operations::METHODS.iter().find(|method| method.name == request.method).unwrap();
        Job::new(request.context.clone(), method.name, key, Deadline::NEVER, entry, again)
    }

    /// Another member of the cluster, alive, on the same lock service, database, broker and share.
    pub(crate) async fn member(&self, host: &str) -> Arc<VolumeManager> {
        let executor = Executor::new(None, std::time::Duration::from_secs(60));
        let driver = LocalDriver::new(LocalOptions::new(self.share()), executor).unwrap();
        let manager = VolumeManager::new(Parts {
            options: Options { host: host.to_owned(), ..self.manager.options.clone() },
            db: self.db.clone(),
            locks: Coordinator::new(Arc::new(self.provider.another(host))),
            driver: Arc::new(driver),
            compute: Some(self.nova.clone()),
            transport: self.broker.transport(),
            log: Arc::new(NoLog),
            tasks: Tasks::new(),
        });
        manager.start().await.unwrap();
        manager.start_reports();
        manager
    }

    /// The manager's process is gone as far as others can tell: its locks are.
    pub(crate) async fn die(&self) {
        use scoria_coordination::Provider;
        self.provider.close().await;
    }

    pub(crate) fn share(&self) -> std::path::PathBuf {
        self.dir.path().join("share")
    }

    pub(crate) fn context() -> RequestContext {
        RequestContext::user("admin", PROJECT)
    }

    /// A row in `creating`, as cinder-api and the scheduler leave it.
    pub(crate) async fn row(&self, size: u64, change: impl FnOnce(&mut Volume)) -> Volume {
        let mut volume = Volume::new(VolumeId::random(), size);
        volume.user_id = Some("admin".to_owned());
        volume.project_id = Some(PROJECT.to_owned());
        volume.host = Some("node@local#local".to_owned());
        volume.volume_type_id = Some(self.db.default_volume_type().await.unwrap().unwrap().id);
        change(&mut volume);
        self.db.volume_create(&volume).await.unwrap()
    }

    /// A volume that is there.
    pub(crate) async fn volume(&self, size: u64) -> Volume {
        let volume = self.row(size, |_| {}).await;
        self.run(&create_request(&volume, json!({}))).await.unwrap();
        self.get(&volume.id).await
    }

    /// A snapshot that is there.
    pub(crate) async fn snapshot(&self, volume: &Volume) -> Snapshot {
        let snapshot = self.snapshot_row(volume).await;
        self.run(&request("create_snapshot", json!({"snapshot": object::encode_snapshot(&snapshot)}))).await.unwrap();
        self.db.snapshot_get(&snapshot.id).await.unwrap().unwrap()
    }

    pub(crate) async fn snapshot_row(&self, volume: &Volume) -> Snapshot {
        let mut snapshot = Snapshot::new(SnapshotId::random(), volume.id.clone(), volume.size);
        snapshot.user_id = Some("admin".to_owned());
        snapshot.project_id = Some(PROJECT.to_owned());
        snapshot.volume_type_id.clone_from(&volume.volume_type_id);
        self.db.snapshot_create(&snapshot).await.unwrap()
    }

    pub(crate) async fn get(&self, id: &VolumeId) -> Volume {
        self.db.volume_get(id).await.unwrap().expect("the volume is there")
    }

    pub(crate) async fn set_status(&self, id: &VolumeId, status: VolumeStatus) {
        let swap = self.db.volume_update(id, &scoria_db::Expect::any(), &scoria_db::VolumeChange::status(status)).await;
        assert!(swap.unwrap().is_done());
    }

    pub(crate) async fn set_snapshot_status(&self, id: &SnapshotId, status: SnapshotStatus) {
        let change = scoria_db::SnapshotChange { status: Some(status), ..scoria_db::SnapshotChange::default() };
        assert!(self.db.snapshot_update(id, &scoria_db::Expect::any(), &change).await.unwrap().is_done());
    }

    pub(crate) fn write(&self, volume: &Volume, data: &[u8]) {
        let path = self.share().join(format!("volume-{}", volume.id));
        use std::os::unix::fs::FileExt;
        std::fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(data, 4096).unwrap();
    }

    /// Eleven bytes of where [`World::write`] writes, and the file's length.
    pub(crate) fn read(&self, volume: &Volume) -> ([u8; 11], u64) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::File::open(self.share().join(format!("volume-{}", volume.id))).unwrap();
        let mut data = [0; 11];
        file.read_exact_at(&mut data, 4096).unwrap();
        (data, file.metadata().unwrap().len())
    }

    pub(crate) fn files(&self) -> Vec<String> {
        files_below(&self.share())
    }

    /// No workers row, no lock, and no file whose volume no row knows; of a volume that could not be made no file either.
    pub(crate) async fn nothing_left_over(&self) {
        let workers = self.db.workers_stale(&scoria_db::WorkerFilter::default()).await.unwrap();
        assert!(workers.is_empty(), "workers rows left: {workers:?}");
        self.no_lock_is_held().await;
        assert!(self.manager.running().list().is_empty());
        for file in self.files() {
            assert!(!file.contains("tmp"), "temporary file left: {file}");
            let id: VolumeId = file.trim_start_matches("volume-").chars().take(36).collect::<String>().parse().unwrap();
            let volume = self.db.volume_get(&id).await.unwrap();
            let volume = volume.unwrap_or_else(|| panic!("{file} belongs to no volume"));
            let was_never_made = volume.status == VolumeStatus::Error && volume.launched_at.is_none();
            assert!(!was_never_made, "{file} was left by a failed creation");
        }
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        // The share's own lock stays as long as its volume; the driver's suite looks after it.
        .filter(|name| !name.ends_with(".scoria-lock"))
        .collect();
    files.sort();
    files
}

pub(crate) fn request(method: &str, args: Value) -> Request {
    let Value::Object(args) = args else { panic!("arguments are an object") };
    Request::new(method, "3.0", World::context(), args)
}

pub(crate) fn create_request(volume: &Volume, more: Value) -> Request {
    let mut args = Map::new();
    args.insert("volume".to_owned(), object::encode_volume(volume));
    args.insert("request_spec".to_owned(), Value::Null);
    args.insert("filter_properties".to_owned(), Value::Null);
    if let Value::Object(more) = more {
        args.extend(more);
    }
    request("create_volume", Value::Object(args))
}
