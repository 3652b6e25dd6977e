//! The figures: raw as JSON, and as a table with ratios.

use std::fmt::Write;
use std::time::Duration;

use crate::bare::Bare;

use serde_json::{Value, json};

/// What was measured of one client on one service.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// A free lock taken and given back.
    pub(crate) free: Vec<Duration>,
    /// Pairs per second over 32 locks.
    pub(crate) rate: f64,
    /// Pairs per second with 1000 locks in flight on one connection; Scoria only.
    pub(crate) in_flight: Option<f64>,
    /// From the release to the waiter's having it.
    pub(crate) hand_over: Vec<Duration>,
    /// Turns of each of eight waiters.
    pub(crate) turns: Vec<u64>,
}

/// One lock service, both clients, and the bare requests.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) kind: &'static str,
    /// None where tooz has no such service.
    pub(crate) tooz: Option<Measured>,
    pub(crate) ours: Measured,
    /// Empty where a lock is no pair of requests.
    pub(crate) bare: Bare,
}

impl Measured {
    /// From what `measure_tooz.py` prints.
    pub(crate) fn of_tooz(value: &Value) -> Self {
        let seconds = |key: &str| value[key].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let times = |key: &str| seconds(key).filter_map(Value::as_f64).map(Duration::from_secs_f64).collect();
        Self {
            free: times("free"),
            rate: value["rate"].as_f64().unwrap_or_default(),
            in_flight: None,
            hand_over: times("hand_over"),
            turns: seconds("turns").filter_map(Value::as_u64).collect(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "free_us": [micros(&self.free, 50), micros(&self.free, 99)],
            "pairs": self.free.len(),
            "rate_32": self.rate,
            "rate_1000": self.in_flight,
            "hand_over_us": [micros(&self.hand_over, 50), micros(&self.hand_over, 99)],
            "turns": self.turns,
        })
    }
}

/// A percentile in microseconds.
fn micros(times: &[Duration], percent: usize) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    Some(sorted[at].as_secs_f64() * 1e6)
}

/// All raw figures.
pub(crate) fn raw(services: &[Service]) -> Value {
    let of = |service: &Service| {
        json!({
            "service": service.kind,
            "tooz": service.tooz.as_ref().map(Measured::json),
            "scoria": service.ours.json(),
            "bare_us": [micros(&service.bare.busy, 50), micros(&service.bare.busy, 99)],
            "bare_rested_us": [micros(&service.bare.rested, 50), micros(&service.bare.rested, 99)],
        })
    };
    services.iter().map(of).collect()
}

/// Pairs of figures "tooz / Scoria", with how many times better Scoria is.
pub(crate) fn table(services: &[Service]) -> String {
    let mut text = String::from(
        "| service | free p50 µs | ratio | times bare | 32 locks, pairs/s | ratio | 1000 in flight, pairs/s | of tooz' rate | hand-over p50 µs | \
         hand-over p99 µs | ratio p50 | rested round trips | turns least/most |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for Service { kind, tooz, ours, bare } in services {
        let theirs = tooz.as_ref();
        let free = (theirs.and_then(|tooz| micros(&tooz.free, 50)), micros(&ours.free, 50));
        let rate = (theirs.map(|tooz| tooz.rate), Some(ours.rate));
        let over =
            |percent| (theirs.and_then(|tooz| micros(&tooz.hand_over, percent)), micros(&ours.hand_over, percent));
        let (p50, bare, rested) = (over(50), micros(&bare.busy, 50), micros(&bare.rested, 50));
        let turns = |turns: &[u64]| match (turns.iter().min(), turns.iter().max()) {
            (Some(least), Some(most)) => format!("{least}/{most}"),
            _ => "-".to_owned(),
        };
        let cells = [
            (*kind).to_owned(),
            both(free),
            ratio(free.0, free.1),
            ratio(free.1, bare),
            both(rate),
            ratio(rate.1, rate.0),
            one(ours.in_flight),
            ratio(ours.in_flight, rate.0),
            both(p50),
            both(over(99)),
            ratio(p50.0, p50.1),
            ratio(p50.1, rested.map(|pair| pair / 2.0)),
            format!("{} / {}", theirs.map_or("-".to_owned(), |tooz| turns(&tooz.turns)), turns(&ours.turns)),
        ];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

fn one(figure: Option<f64>) -> String {
    match figure {
        None => "-".to_owned(),
        Some(figure) if figure >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure >= 10.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

fn both((theirs, ours): (Option<f64>, Option<f64>)) -> String {
    format!("{} / {}", one(theirs), one(ours))
}

fn ratio(of: Option<f64>, to: Option<f64>) -> String {
    one(of.zip(to).map(|(of, to)| of / to))
}
