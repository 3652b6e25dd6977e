//! What a service costs: processor time and memory of all its processes, from `/proc`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// `/proc` counts in hundredths of a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
const MIB: f64 = 1024.0 * 1024.0;

/// All processes of a service, found by the mount namespace that it was started in: that also finds a daemon of its own that
/// has left its process tree (privsep's has).
#[derive(Debug, Clone)]
pub(crate) struct Service {
    namespace: PathBuf,
    /// Those that were there before any load, as against the children of one request.
    lasting: Vec<u32>,
}

/// Processor seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    /// Of the living processes.
    pub(crate) own: f64,
    /// Of their children that have ended.
    pub(crate) children: f64,
}

impl Service {
    /// The service that this process belongs to.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let namespace = namespace(pid).with_context(|| format!("process {pid} is gone"))?;
        let mut service = Self { namespace, lasting: Vec::new() };
        service.adopt_all();
        Ok(service)
    }

    /// Counts all processes that live now as lasting ones.
    pub(crate) fn adopt_all(&mut self) {
        self.lasting = self.processes();
    }

    fn processes(&self) -> Vec<u32> {
        processes().filter(|pid| namespace(*pid).as_ref() == Some(&self.namespace)).collect()
    }

    /// How many processes live now.
    pub(crate) fn count(&self) -> usize {
        self.processes().len()
    }

    /// Processor time so far.
    pub(crate) fn cpu(&self) -> Cpu {
        let all = self.processes().into_iter().filter_map(stat);
        all.fold(Cpu { own: 0.0, children: 0.0 }, |sum, stat| Cpu {
            own: sum.own + stat.own,
            children: sum.children + stat.children,
        })
    }

    /// Resident memory in MiB: of the lasting processes, and of all that live now.
    pub(crate) fn resident(&self) -> (f64, f64) {
        let sum = |pids: &[u32]| pids.iter().filter_map(|pid| resident(*pid)).sum();
        (sum(&self.lasting), sum(&self.processes()))
    }

    /// Watches the memory until told to stop.
    pub(crate) fn watch(&self) -> Watch {
        let (service, stop) = (self.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut lasting, mut all) = (0.0_f64, 0.0_f64);
            while !stopped.load(Ordering::Relaxed) {
                let now = service.resident();
                (lasting, all) = (lasting.max(now.0), all.max(now.1));
                std::thread::sleep(Duration::from_millis(100));
            }
            (lasting, all)
        });
        Watch { stop, thread }
    }
}

/// Watches the memory of a service.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(f64, f64)>,
}

impl Watch {
    /// The peaks in MiB: of the lasting processes, and of all.
    pub(crate) fn peaks(self) -> (f64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// Processor seconds so far of what is not measured but shares the machine: the servers, this program, and everything.
pub(crate) fn surroundings() -> BTreeMap<String, f64> {
    let own = std::process::id();
    let all: Vec<_> = processes().filter_map(stat).collect();
    // The test kit starts each server in a process group of its own; the broker's leader is a shell script.
    let ours: Vec<_> = all.iter().filter(|stat| stat.parent == own).map(|stat| stat.pid).collect();
    let mut seconds = BTreeMap::new();
    for stat in all {
        if stat.pid == own {
            seconds.insert("load generator".to_owned(), stat.own);
        } else if ours.contains(&stat.group) && ["mariadbd", "beam.smp"].contains(&stat.name.as_str()) {
            seconds.insert(stat.name, stat.own);
        }
    }
    if let Some(busy) = machine_busy() {
        seconds.insert("whole machine".to_owned(), busy);
    }
    seconds
}

/// Busy processor seconds of the machine since it was started.
fn machine_busy() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> = text.lines().next()?.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal, and guest, which is in user already.
    let ticks: f64 = fields.iter().take(8).enumerate().filter(|(i, _)| ![3, 4].contains(i)).map(|(_, n)| n).sum();
    Some(ticks / TICKS_PER_SECOND)
}

/// What a reader must know about the machine.
pub(crate) fn machine() -> Value {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let line = |file: &str, key: &str| {
        let text = read(file);
        let found = text.lines().find_map(|line| line.strip_prefix(key));
        found.map(|rest| rest.trim_start_matches([':', ' ', '\t']).trim().to_owned())
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": line("/proc/cpuinfo", "model name"),
        "memory": line("/proc/meminfo", "MemTotal"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average_before": read("/proc/loadavg").trim(),
    })
}

struct Stat {
    pid: u32,
    parent: u32,
    group: u32,
    name: String,
    own: f64,
    children: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    // Counted from the state, field 3 of proc(5).
    let seconds = |field: usize| fields.get(field - 3)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND);
    Some(Stat {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        name: head.split_once('(')?.1.to_owned(),
        own: seconds(14)? + seconds(15)?,
        children: seconds(16)? + seconds(17)?,
    })
}

fn resident(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kibibytes * 1024.0 / MIB)
}

fn namespace(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
