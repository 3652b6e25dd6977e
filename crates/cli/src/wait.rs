//! Waiting for what the volume service does with a volume or snapshot.

use std::time::{Duration, Instant};

use scoria_runtime::Backoff;
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::exit::{Exit, Failure, Result};
use crate::output::Progress;

/// A service that is started anew is waited for; one that stays away for longer is not.
const MOST_SILENCE: Duration = Duration::from_secs(60);

/// Whether and how long to wait.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Waiting {
    /// Wait until it is done: the default.
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Return once the request is accepted.
    #[arg(long)]
    no_wait: bool,
    /// Wait for at most so many seconds; what was asked for goes on after that.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "no_wait")]
    timeout: Option<Duration>,
}

/// Seconds on the command line; fractions are allowed.
pub(crate) fn seconds(text: &str) -> std::result::Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// A volume or snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Volume,
    Snapshot,
}

impl Kind {
    /// The word for it: key of the API's answers.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Waiting {
    /// Whether to wait at all.
    pub(crate) fn wanted(&self) -> bool {
        !self.no_wait
    }

    /// Waits until a resource has left these states; what it looks like then, `None` when it is gone.
    pub(crate) async fn until_left(
        &self,
        api: &Endpoint,
        kind: Kind,
        id: &str,
        states: &[&str],
    ) -> Result<Option<Value>> {
        let word = kind.word();
        let path = format!("/{word}s/{id}");
        let progress = Progress::start(format!("{word} {id}"));
        let begun = Instant::now();
        let mut heard = begun;
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            match api.get::<Value>(&path, word).await {
                Ok(seen) => {
                    let status = seen["status"].as_str().unwrap_or_default();
                    if !states.contains(&status) {
                        return Ok(Some(seen));
                    }
                    heard = Instant::now();
                    progress.say(format!("{word} {id}: {status}"));
                }
                Err(failure) if failure.exit == Exit::NotFound => return Ok(None),
                Err(failure) if failure.exit == Exit::Unavailable && heard.elapsed() < MOST_SILENCE => {
                    progress.say(format!("{word} {id}: the API does not answer, trying again"));
                }
                Err(failure) => return Err(failure),
            }
            if let Some(limit) = self.timeout.filter(|limit| begun.elapsed() >= *limit) {
                return Err(Failure::failed(format!(
                    "{word} {id} was not done after {} s: the service goes on with it, see scoria {word} show {id}",
                    limit.as_secs_f64()
                )));
            }
            tokio::time::sleep(pause.next_wait()).await;
        }
    }

    /// Waits until a resource is made or changed, and says so when it has come to grief.
    pub(crate) async fn until_good(&self, api: &Endpoint, kind: Kind, id: &str, states: &[&str]) -> Result<Value> {
        let word = kind.word();
        let seen = self.until_left(api, kind, id, states).await?;
        let seen = seen.ok_or_else(|| Failure::not_found(format!("{word} {id} was deleted meanwhile")))?;
        check(kind, id, &seen)?;
        Ok(seen)
    }

    /// Waits until a resource is gone.
    pub(crate) async fn until_gone(&self, api: &Endpoint, kind: Kind, id: &str) -> Result<()> {
        let Some(seen) = self.until_left(api, kind, id, &["deleting"]).await? else { return Ok(()) };
        check(kind, id, &seen)?;
        let (word, status) = (kind.word(), seen["status"].as_str().unwrap_or_default());
        // What is in use elsewhere is put back.
        Err(Failure::failed(format!(
            "{word} {id} was not deleted and is {status} again: it was in use, try again later"
        )))
    }
}

fn check(kind: Kind, id: &str, seen: &Value) -> Result<()> {
    let (word, status) = (kind.word(), seen["status"].as_str().unwrap_or_default());
    if status.starts_with("error") {
        return Err(Failure::new(
            Exit::ErrorState,
            format!(
                "{word} {id} ended in status {status}: the log of the volume service says why; delete it or try again"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_numbers_that_can_be_waited() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["-1", "NaN", "inf", "soon"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
