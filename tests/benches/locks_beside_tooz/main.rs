//! Scoria's locks beside tooz 9.1.0: the same servers, one after the other, in one run.
//!
//! `make bench`, or: `cargo bench -p scoria-tests --bench locks_beside_tooz -- [--quick] [--only SERVICE] [--save FILE]`.
//! Method and figures: docs/benchmarks.md. It measures and judges nothing: it fails only when a lock does.

mod bare;
mod ours;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use scoria_db::Database;
use scoria_runtime::Tasks;
use scoria_testkit::{Etcd, MariaDb, Memcached, Postgres, PythonPeer, Redis, ZooKeeper, repository};

use bare::Bare;
use ours::Place;
use report::{Measured, Service};

struct Options {
    /// How long each measurement takes.
    time: Duration,
    only: Option<String>,
    save: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options { time: Duration::from_secs(5), only: None, save: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.time = Duration::from_secs(1),
            "--save" => options.save = Some(arguments.next().context("--save wants a file")?.into()),
            "--only" => options.only = Some(arguments.next().context("--only wants a service")?),
            // What cargo says to every benchmark.
            "--bench" => {}
            other => bail!("{other}: use --quick, --only SERVICE, --save FILE"),
        }
    }
    Ok(options)
}

/// What a lock is compared with besides tooz.
enum Requests {
    /// The bare requests to a server on this port.
    To(u16),
    /// Bare updates in this database.
    Updates(String),
    /// A lock is no pair of requests.
    None,
}

fn at(url: String) -> Place {
    Place { url, database: None }
}

/// `database://` in this database, on tables of our own.
async fn table_in(url: String) -> Result<Place> {
    let database = Database::connect(&scoria_db::Options::new(&url)).await?;
    database.sync().await?;
    database.close().await;
    Ok(Place { url: "database://".to_owned(), database: Some(url) })
}

struct Bench {
    options: Options,
    peer: PythonPeer,
    services: Vec<Service>,
}

impl Bench {
    fn wants(&self, kind: &str) -> bool {
        self.options.only.as_deref().is_none_or(|only| only == kind)
    }

    async fn tooz(&self, url: &str) -> Result<Measured> {
        let time = self.options.time;
        let script = repository().join("tests/python/measure_tooz.py");
        let arguments = [url, &time.as_secs().to_string(), "contended"];
        Ok(Measured::of_tooz(&self.peer.run(&script, &arguments, time * 30 + Duration::from_secs(60)).await?))
    }

    /// Measures tooz, then Scoria, then the bare requests.
    async fn measure(
        &mut self,
        kind: &'static str,
        theirs: Option<&str>,
        ours: Place,
        requests: Requests,
    ) -> Result<()> {
        eprintln!("{kind} ...");
        let time = self.options.time;
        let tooz = match theirs {
            Some(url) => Some(self.tooz(url).await?),
            None => None,
        };
        // In a task, as operations are in the service.
        let measured = Tasks::new().spawn("measure", ours::measure(ours, time));
        let ours = measured.await?.with_context(|| format!("Scoria on {kind}"))?;
        let bare = match requests {
            Requests::To(port) => tokio::task::block_in_place(|| bare::measure(kind, port, time))?,
            Requests::Updates(url) => bare::measure_updates(&url, time).await?,
            Requests::None => Bare::default(),
        };
        self.services.push(Service { kind, tooz, ours, bare });
        Ok(())
    }

    async fn run(&mut self) -> Result<()> {
        if self.wants("file") {
            let (theirs, directory) = (tempfile::tempdir()?, tempfile::tempdir()?);
            let url = |directory: &tempfile::TempDir| format!("file://{}", directory.path().display());
            self.measure("file", Some(&url(&theirs)), at(url(&directory)), Requests::None).await?;
        }
        if self.wants("memcached") {
            let server = Memcached::start().await?;
            self.measure("memcached", Some(&server.url()), at(server.url()), Requests::To(server.port())).await?;
        }
        if self.wants("redis") {
            let server = Redis::start().await?;
            self.measure("redis", Some(&server.url()), at(server.url()), Requests::To(server.port())).await?;
        }
        if self.wants("zookeeper") {
            let server = ZooKeeper::start_as_shipped().await?;
            // A Java machine is slow until it has compiled what it does often, and tooz comes first.
            self.tooz(&server.url()).await?;
            self.measure("zookeeper", Some(&server.url()), at(server.url()), Requests::To(server.port())).await?;
        }
        if self.wants("etcd3+http") || self.wants("etcd") {
            let server = Etcd::start().await?;
            let port = server.port();
            let gateway = format!("etcd3+http://127.0.0.1:{port}");
            self.measure("etcd3+http", Some(&gateway), at(gateway.clone()), Requests::To(port)).await?;
            // Compared with what an operator would use otherwise.
            self.measure("etcd", Some(&gateway), at(format!("etcd://127.0.0.1:{port}")), Requests::To(port)).await?;
        }
        if self.wants("mysql") || self.wants("database") {
            let server = MariaDb::start().await?;
            let url = server.sqlx_url();
            self.measure("mysql", Some(&url), at(url.clone()), Requests::None).await?;
            let place = table_in(server.url()).await?;
            self.measure("database (MariaDB)", None, place, Requests::Updates(url)).await?;
        }
        if self.wants("postgresql") || self.wants("database") {
            let server = Postgres::start().await?;
            let url = server.sqlx_url().replace("postgres://", "postgresql://");
            self.measure("postgresql", Some(&url), at(url.clone()), Requests::None).await?;
            let place = table_in(server.url()).await?;
            self.measure("database (PostgreSQL)", None, place, Requests::Updates(url)).await?;
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    let options = options()?;
    let mut bench = Bench { options, peer: PythonPeer::find()?, services: Vec::new() };
    // As in the service.
    scoria_runtime::service_executor()?.block_on(bench.run())?;
    println!("\n\"tooz / Scoria\"; a ratio says how many times better Scoria is\n\n{}", report::table(&bench.services));
    if let Some(file) = &bench.options.save {
        std::fs::write(file, format!("{:#}\n", report::raw(&bench.services)))?;
    }
    Ok(())
}
