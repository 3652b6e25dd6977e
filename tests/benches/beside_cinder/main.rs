//! Scoria beside the real Python cinder-volume: one database, one broker, one share each, the same load, one after the other.
//!
//! `make bench`, or: `cargo bench -p scoria-tests --bench beside_cinder -- [--quick] [--only python|scoria] [--save FILE]`.
//! Method and figures: docs/benchmarks.md. It measures and judges nothing: it fails only when a request does.

mod load;
mod report;
mod service;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use scoria_model::Volume;
use scoria_testkit::{MariaDb, RabbitMq, Site, repository};

use load::{Ask, Load};
use report::{Measured, Report, Start};
use service::{Kind, Prepared};
use usage::Service;

/// How many requests of a kind are made at each concurrency.
#[derive(Debug, Clone, Copy)]
struct Round {
    concurrency: usize,
    /// Creates and deletes.
    volumes: usize,
    /// Snapshots, and their deletes.
    snapshots: usize,
    /// Clones; Python takes a second for each.
    clones: usize,
}

const fn round(concurrency: usize, volumes: usize, snapshots: usize, clones: usize) -> Round {
    Round { concurrency, volumes, snapshots, clones }
}

/// What Python can do in some minutes.
const PYTHON: &[Round] = &[round(1, 10, 5, 4), round(16, 48, 24, 16), round(64, 128, 64, 0)];
const SCORIA: &[Round] = &[round(1, 100, 50, 50), round(16, 800, 200, 200), round(64, 1280, 320, 0)];
/// To see whether it works.
const QUICK: &[Round] = &[round(1, 2, 1, 1), round(4, 8, 4, 0)];
/// Not measured: the first requests start helper daemons and open connections.
const WARM_UP: Round = round(2, 4, 2, 2);
/// Starts that are measured; the first one of all, with cold caches, is not.
const STARTS: usize = 3;

struct Options {
    quick: bool,
    only: Option<Kind>,
    save: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options { quick: false, only: None, save: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--save" => options.save = Some(arguments.next().context("--save wants a file")?.into()),
            "--only" => {
                options.only = Some(match arguments.next().as_deref() {
                    Some("python") => Kind::Python,
                    Some("scoria") => Kind::Scoria,
                    _ => bail!("--only wants python or scoria"),
                });
            }
            // What cargo says to every benchmark.
            "--bench" => {}
            other => bail!("{other}: use --quick, --only python|scoria, --save FILE"),
        }
    }
    Ok(options)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = options()?;
    let machine = usage::machine();
    let (database, broker) = (MariaDb::start().await?, RabbitMq::start().await?);
    Site::new(&database.url(), &broker.url())?.sync_database().await?;
    let mut reports = Vec::new();
    for (kind, rounds) in [(Kind::Python, PYTHON), (Kind::Scoria, SCORIA)] {
        if options.only.is_none_or(|only| only == kind) {
            let rounds = if options.quick { QUICK } else { rounds };
            reports.push(measure(kind, rounds, &database, &broker).await?);
        }
    }
    let json = report::json(&machine, &reports);
    println!("{}", report::table(&machine, &reports));
    if let Some(file) = options.save {
        // cargo runs benchmarks in their package's directory.
        let file = repository().join(file);
        std::fs::write(&file, serde_json::to_string_pretty(&json)? + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn measure(kind: Kind, rounds: &[Round], database: &MariaDb, broker: &RabbitMq) -> Result<Report> {
    eprintln!("{}: preparing", kind.name());
    let prepared = Prepared::new(kind, database, broker).await?;
    let load = Load::connect(database, broker).await?;
    let mut starts = Vec::new();
    let mut process = loop {
        let (mut process, took) = prepared.start(&load).await?;
        eprintln!("{}: services row after {took:.2?}", kind.name());
        starts.push(took);
        if starts.len() == STARTS {
            break process;
        }
        // Stopped only when it has started altogether.
        tokio::time::sleep(Duration::from_secs(3)).await;
        service::stop(&mut process).await?;
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut bench = Bench { kind, load, prepared, service: Service::of(process.pid())?, measured: Vec::new() };
    let start = Start { seconds: starts, idle: bench.service.resident().0, processes: bench.service.count() };
    let outcome = bench.run(rounds).await;
    outcome.with_context(|| process.log_tail())?;
    let after = bench.service.resident().0;
    service::stop(&mut process).await?;
    bench.load.close().await;
    Ok(Report { kind, start, idle_after: after, measured: bench.measured })
}

struct Bench {
    kind: Kind,
    load: Load,
    prepared: Prepared,
    service: Service,
    measured: Vec<Measured>,
}

impl Bench {
    async fn run(&mut self, rounds: &[Round]) -> Result<()> {
        self.round(WARM_UP).await?;
        self.measured.clear();
        // Daemons that the first requests started stay: they belong to the service.
        self.service.adopt_all();
        for round in rounds {
            self.round(*round).await?;
        }
        Ok(())
    }

    /// Makes volumes; of some of them clones, snapshots and none again; and deletes the volumes.
    async fn round(&mut self, round: Round) -> Result<()> {
        let (host, n) = (self.kind.name(), round.concurrency);
        let made = self.load.new_volumes(host, round.volumes, None).await?;
        let mut volumes = self.created("create", made, n).await?;

        let mut clones = self.load.new_volumes(host, round.clones, Some(&volumes)).await?;
        clones = self.created("clone", clones, n).await?;

        let sources = &volumes[..round.snapshots];
        let mut snapshots = self.load.new_snapshots(sources).await?;
        let pairs = || sources.iter().cloned().zip(snapshots.iter().cloned());
        let asks: Vec<_> = pairs().map(|(volume, snapshot)| Ask::Snapshot(volume, snapshot)).collect();
        self.measure("snapshot", asks, n).await?;
        self.load.mark_snapshots(&mut snapshots).await?;
        let pairs = sources.iter().cloned().zip(snapshots);
        let asks = pairs.map(|(volume, snapshot)| Ask::DeleteSnapshot(volume, snapshot)).collect();
        self.measure("delete snapshot", asks, n).await?;

        self.load.mark_volumes(&mut volumes).await?;
        self.measure("delete", volumes.into_iter().map(Ask::Delete).collect(), n).await?;
        // So that the share is as empty in the next round.
        self.load.mark_volumes(&mut clones).await?;
        self.load.run(&clones.into_iter().map(Ask::Delete).collect::<Vec<_>>(), 16).await?;
        Ok(())
    }

    async fn created(&mut self, operation: &'static str, volumes: Vec<Volume>, n: usize) -> Result<Vec<Volume>> {
        self.measure(operation, volumes.iter().cloned().map(Ask::Create).collect(), n).await?;
        let location = Some(self.prepared.site.export().to_owned());
        let located = |volume| Volume {
            status: scoria_model::VolumeStatus::Available,
            provider_location: location.clone(),
            ..volume
        };
        Ok(volumes.into_iter().map(located).collect())
    }

    async fn measure(&mut self, operation: &'static str, asks: Vec<Ask>, concurrency: usize) -> Result<()> {
        if asks.is_empty() {
            return Ok(());
        }
        // What the operation before left to be done: acknowledgements, notifications, children that end.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (watch, around, before) = (self.service.watch(), usage::surroundings(), self.service.cpu());
        let times = self.load.run(&asks, concurrency).await?;
        let around_after = usage::surroundings();
        // The row is not the end: what comes after it is paid for too.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let measured = Measured::new(operation, concurrency, times, (before, self.service.cpu()), watch.peaks())
            .with_surroundings(&around, &around_after);
        eprintln!("{}: {}", self.kind.name(), measured.line());
        self.measured.push(measured);
        Ok(())
    }
}
