//! The figures: as JSON, and as a table with ratios.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Times;
use crate::service::Kind;
use crate::usage::Cpu;

/// One operation at one concurrency.
#[derive(Debug)]
pub(crate) struct Measured {
    operation: &'static str,
    concurrency: usize,
    requests: usize,
    /// Sorted.
    latencies: Vec<Duration>,
    all: Duration,
    /// Processor seconds per request: of the service's processes, and of their children.
    own: f64,
    children: f64,
    /// Peak resident memory in MiB: of the lasting processes, and with the children.
    peak: f64,
    peak_all: f64,
    /// Processors kept busy by what else there is, and by everything.
    surroundings: BTreeMap<String, f64>,
}

/// How a service starts, and what it holds when it has nothing to do.
#[derive(Debug)]
pub(crate) struct Start {
    /// From start to services row.
    pub(crate) seconds: Vec<Duration>,
    /// Resident memory in MiB.
    pub(crate) idle: f64,
    pub(crate) processes: usize,
}

/// All about one service.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) kind: Kind,
    pub(crate) start: Start,
    /// Resident memory in MiB when all is done.
    pub(crate) idle_after: f64,
    pub(crate) measured: Vec<Measured>,
}

impl Measured {
    pub(crate) fn new(
        operation: &'static str,
        concurrency: usize,
        times: Times,
        (before, after): (Cpu, Cpu),
        (peak, peak_all): (f64, f64),
    ) -> Self {
        let requests = times.each.len();
        let mut latencies = times.each;
        latencies.sort_unstable();
        Self {
            operation,
            concurrency,
            requests,
            latencies,
            all: times.all,
            own: (after.own - before.own) / requests as f64,
            children: (after.children - before.children) / requests as f64,
            peak,
            peak_all,
            surroundings: BTreeMap::new(),
        }
    }

    /// Adds how many processors everything else kept busy.
    pub(crate) fn with_surroundings(mut self, before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Self {
        let seconds = self.all.as_secs_f64();
        let used = |(name, after): (&String, &f64)| Some((name.clone(), (after - before.get(name)?) / seconds));
        self.surroundings = after.iter().filter_map(used).collect();
        self
    }

    fn cpu(&self) -> f64 {
        self.own + self.children
    }

    fn per_second(&self) -> f64 {
        self.requests as f64 / self.all.as_secs_f64()
    }

    /// The latency in seconds that this part of the requests does not exceed.
    fn latency(&self, part: f64) -> f64 {
        let rank = (part * self.latencies.len() as f64).ceil() as usize;
        self.latencies.get(rank.saturating_sub(1)).map_or(0.0, Duration::as_secs_f64)
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{} x{} at {}: {:.1}/s, p50 {:.0} ms, p99 {:.0} ms, cpu {:.2}+{:.2} ms, peak {:.0} MiB, with children {:.0}",
            self.operation,
            self.requests,
            self.concurrency,
            self.per_second(),
            self.latency(0.5) * 1e3,
            self.latency(0.99) * 1e3,
            self.own * 1e3,
            self.children * 1e3,
            self.peak,
            self.peak_all,
        )
    }

    fn json(&self) -> Value {
        let busy: BTreeMap<_, _> = self.surroundings.iter().map(|(name, busy)| (name, rounded(*busy))).collect();
        json!({
            "operation": self.operation, "concurrency": self.concurrency, "requests": self.requests,
            "seconds": rounded(self.all.as_secs_f64()), "per_second": rounded(self.per_second()),
            "latency_ms": {
                "p50": rounded(self.latency(0.5) * 1e3), "p90": rounded(self.latency(0.9) * 1e3),
                "p99": rounded(self.latency(0.99) * 1e3), "max": rounded(self.latency(1.0) * 1e3),
            },
            "cpu_ms_per_request": {
                "total": rounded(self.cpu() * 1e3), "service": rounded(self.own * 1e3),
                "children": rounded(self.children * 1e3),
            },
            "peak_resident_mib": {"service": rounded(self.peak), "with_children": rounded(self.peak_all)},
            "busy_processors": busy,
        })
    }
}

impl Report {
    fn json(&self) -> Value {
        let seconds: Vec<_> = self.start.seconds.iter().map(|took| rounded(took.as_secs_f64())).collect();
        json!({
            "service": self.kind.name(), "start_to_services_row_seconds": seconds,
            "resident_idle_mib": rounded(self.start.idle), "resident_after_load_mib": rounded(self.idle_after),
            "processes_idle": self.start.processes,
            "measured": self.measured.iter().map(Measured::json).collect::<Vec<_>>(),
        })
    }

    fn find(&self, other: &Measured) -> Option<&Measured> {
        let same = |own: &&Measured| (own.operation, own.concurrency) == (other.operation, other.concurrency);
        self.measured.iter().find(same)
    }

    /// The middle start.
    fn start_seconds(&self) -> f64 {
        let mut all = self.start.seconds.clone();
        all.sort_unstable();
        all.get(all.len() / 2).map_or(0.0, Duration::as_secs_f64)
    }

    fn peak(&self) -> f64 {
        self.measured.iter().map(|measured| measured.peak).fold(0.0, f64::max)
    }
}

/// Everything.
pub(crate) fn json(machine: &Value, reports: &[Report]) -> Value {
    json!({"machine": machine, "services": reports.iter().map(Report::json).collect::<Vec<_>>()})
}

/// The comparison in Markdown, where both services were measured.
pub(crate) fn table(machine: &Value, reports: &[Report]) -> String {
    let [python, scoria] = reports else { return String::new() };
    let mut text = format!(
        "{} cores, {}, kernel {}; load average before: {}\n\n",
        machine["cores"],
        machine["cpu"].as_str().unwrap_or("unknown processor"),
        machine["kernel"].as_str().unwrap_or("unknown"),
        machine["load_average_before"].as_str().unwrap_or("unknown"),
    );
    text += "| operation | in flight | requests | per second | p50 ms | p99 ms | CPU ms per request | CPU ratio | rate ratio | p99 ratio |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|\n";
    for (before, after) in python.measured.iter().filter_map(|before| Some((before, scoria.find(before)?))) {
        let pair = |of: fn(&Measured) -> f64| format!("{} / {}", short(of(before)), short(of(after)));
        let ratio = |of: fn(&Measured) -> f64| short(of(before) / of(after));
        let _ = writeln!(
            text,
            "| {} | {} | {} / {} | {} | {} | {} | {} | {} | {} | {} |",
            before.operation,
            before.concurrency,
            before.requests,
            after.requests,
            pair(Measured::per_second),
            pair(|of| of.latency(0.5) * 1e3),
            pair(|of| of.latency(0.99) * 1e3),
            pair(|of| of.cpu() * 1e3),
            ratio(Measured::cpu),
            short(after.per_second() / before.per_second()),
            ratio(|of| of.latency(0.99)),
        );
    }
    text += "\n| | Python | Scoria | ratio |\n|---|---|---|---|\n";
    let mut row = |name: &str, of: fn(&Report) -> f64| {
        let (before, after) = (of(python), of(scoria));
        let _ = writeln!(text, "| {name} | {} | {} | {} |", short(before), short(after), short(before / after));
    };
    row("start to services row, s (median)", Report::start_seconds);
    row("resident idle, MiB", |report| report.start.idle);
    row("resident under load, peak, MiB", Report::peak);
    row("resident after load, MiB", |report| report.idle_after);
    text
}

/// Three significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        value if value >= 99.95 => format!("{value:.0}"),
        value if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
