//! The set, kept as careful storage would keep it, and what the processes that add to it note.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};

/// How many sets there are, each under a lock of its own: while the holder of one is stopped the others go on.
pub(crate) const SETS: usize = 4;
/// How many digits a token is written with.
const DIGITS: usize = 20;

/// The machine's monotonic clock, the same for all processes.
pub(crate) fn now() -> u128 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    Duration::from(now).as_nanos()
}

/// One set: the highest token seen, then a line for each element. Whoever comes with a lower token is refused. An element is written
/// where its writer saw the end of the set, so that one of two who write at the same time is lost.
pub(crate) struct Storage(PathBuf);

impl Storage {
    pub(crate) fn of(directory: &Path, set: usize) -> Self {
        Self(directory.join(format!("set-{set}")))
    }

    /// Opened, for nobody else, if the token is good. From now on lower ones are refused.
    fn locked(&self, token: u64) -> Result<Option<Flock<File>>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&self.0)?;
        let mut file = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let mut highest = String::new();
        (&*file).take(DIGITS as u64).read_to_string(&mut highest)?;
        let highest: u64 = if highest.is_empty() { 0 } else { highest.parse()? };
        if token > highest || file.metadata()?.len() == 0 {
            file.seek(SeekFrom::Start(0))?;
            write!(file, "{}", format_args!("{token:0DIGITS$}"))?;
        }
        Ok((token >= highest).then_some(file))
    }

    /// Where the set ends; `None` for a token lower than one seen before.
    pub(crate) fn end(&self, token: u64) -> Result<Option<u64>> {
        let Some(mut file) = self.locked(token)? else { return Ok(None) };
        Ok(Some(file.seek(SeekFrom::End(0))?))
    }

    /// Writes an element at what was the end; false for a token lower than one seen before.
    pub(crate) fn add(&self, token: u64, end: u64, element: &str) -> Result<bool> {
        let Some(mut file) = self.locked(token)? else { return Ok(false) };
        file.seek(SeekFrom::Start(end))?;
        // In one write, so that a process killed here leaves all of it or nothing.
        file.write_all(format!("\n{element}").as_bytes())?;
        Ok(true)
    }

    /// All elements.
    pub(crate) fn elements(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().skip(1).map(str::to_owned).collect()
    }
}

/// What the names of files with notes begin with.
const NOTES: &str = "notes-";

/// What one process noted: `got SET TOKEN TIME`, `had SET TOKEN TIME`, `added SET ELEMENT`.
pub(crate) struct Notes(File);

impl Notes {
    pub(crate) fn new(directory: &Path, process: &str) -> Result<Self> {
        Ok(Self(File::create_new(directory.join(format!("{NOTES}{process}")))?))
    }

    pub(crate) fn note(&self, line: &str) -> Result<()> {
        Ok((&self.0).write_all(format!("{line}\n").as_bytes())?)
    }
}

/// What the processes noted of one set.
#[derive(Default)]
struct Noted {
    got: Vec<(u64, u128)>,
    had: Vec<(u64, u128)>,
    added: BTreeSet<String>,
}

/// What was looked at.
pub(crate) struct Judged {
    pub(crate) moments: usize,
    pub(crate) additions: usize,
}

/// Looks through the notes of all processes.
pub(crate) fn judge(directory: &Path) -> Result<Judged> {
    let mut noted: [Noted; SETS] = Default::default();
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        if !file.file_name().to_string_lossy().starts_with(NOTES) {
            continue;
        }
        let text = std::fs::read_to_string(file.path())?;
        // What comes behind the last end of a line was being written when the process was killed.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["got", set, token, time] => noted[set.parse::<usize>()?].got.push((token.parse()?, time.parse()?)),
                ["had", set, token, time] => noted[set.parse::<usize>()?].had.push((token.parse()?, time.parse()?)),
                ["added", set, element] => drop(noted[set.parse::<usize>()?].added.insert(element.to_owned())),
                _ => bail!("{}: {line}", file.path().display()),
            }
        }
    }
    let mut judged = Judged { moments: 0, additions: 0 };
    for (set, noted) in noted.into_iter().enumerate() {
        judged.moments += noted.had.len();
        judged.additions += noted.added.len();
        noted.judge(&Storage::of(directory, set)).with_context(|| format!("set {set}"))?;
    }
    Ok(judged)
}

impl Noted {
    fn judge(mut self, storage: &Storage) -> Result<()> {
        self.got.sort_unstable();
        for pair in self.got.windows(2) {
            ensure!(pair[0].0 != pair[1].0, "token {} was given out twice", pair[0].0);
        }
        // For each token who first got it or a higher one.
        let mut first = self.got.clone();
        for index in (1..first.len()).rev() {
            if first[index].1 < first[index - 1].1 {
                first[index - 1] = first[index];
            }
        }
        for (token, time) in self.had {
            let later = self.got.partition_point(|(other, _)| *other <= token);
            if let Some((other, since)) = first.get(later) {
                ensure!(*since >= time, "token {token} was still held when {other} had been given out");
            }
        }
        let elements = storage.elements();
        let set: BTreeSet<_> = elements.iter().cloned().collect();
        ensure!(set.len() == elements.len(), "something was added twice");
        let lost: Vec<_> = self.added.difference(&set).collect();
        ensure!(lost.is_empty(), "lost: {lost:?}");
        Ok(())
    }
}

#[test]
fn what_was_lost_or_held_by_two_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let storage = Storage::of(path, 0);
    let end = storage.end(7).unwrap().unwrap();
    assert!(storage.add(7, end, "a").unwrap());
    assert_eq!((storage.end(6).unwrap(), storage.add(6, end, "b").unwrap()), (None, false));
    let judged = |notes: &str| {
        std::fs::write(path.join("notes-0"), notes).unwrap();
        judge(path).map_err(|error| format!("{error:#}"))
    };
    let good = judged("got 0 7 10\nhad 0 7 11\nadded 0 a\ngot 0 8 11\n").unwrap();
    assert_eq!((good.moments, good.additions), (1, 1));
    for (notes, error) in [
        ("got 0 7 10\nhad 0 7 12\ngot 0 9 13\ngot 0 8 11\n", "token 7 was still held when 8 had been given out"),
        ("got 0 7 10\ngot 0 7 11\n", "token 7 was given out twice"),
        ("added 0 a\nadded 0 b\n", "lost: [\"b\"]"),
    ] {
        assert_eq!(judged(notes).err().as_deref(), Some(format!("set 0: {error}").as_str()));
    }
    // Written at an end that is none any more.
    assert!(storage.add(7, end, "b").unwrap());
    assert_eq!(storage.elements(), ["b"]);
}
