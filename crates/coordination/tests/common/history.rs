//! What several instances did with locks, written down and checked.
//!
//! A line per event: `acquired NAME INSTANCE TOKEN`, `releasing NAME INSTANCE` or `lost NAME INSTANCE`, where `TOKEN` is `-` for a
//! service without them. Lines are appended in one write each, so their order is one in which things can have happened:
//! `acquired` is written after the lock was had, `releasing` before it is given back. When somebody acquires a lock that
//! somebody else has not begun to release, that one's lock has to be lost at this very moment.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use scoria_coordination::LockSet;
use scoria_runtime::CancellationToken;

/// A history that is being written, by the instances of one process.
pub(crate) struct History {
    path: PathBuf,
    writing: Mutex<Writing>,
}

struct Writing {
    file: File,
    /// By name: who has it and how its loss is told.
    holders: HashMap<String, (String, CancellationToken)>,
}

/// What a history shows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) acquired: usize,
    pub(crate) lost: usize,
}

impl History {
    pub(crate) fn new(directory: &Path) -> Self {
        let path = directory.join("history");
        let file = File::options().create(true).append(true).open(&path).unwrap();
        Self { path, writing: Mutex::new(Writing { file, holders: HashMap::new() }) }
    }

    /// Somebody has got a lock.
    pub(crate) fn acquired(&self, instance: &str, name: &str, locks: &LockSet) {
        let mut writing = self.writing.lock().unwrap();
        if let Some((before, lost)) = writing.holders.remove(name)
            && lost.is_cancelled()
        {
            writing.line(&format!("lost {name} {before}"));
        }
        let token = locks.token().map_or_else(|| "-".to_owned(), |token| token.to_string());
        writing.line(&format!("acquired {name} {instance} {token}"));
        writing.holders.insert(name.to_owned(), (instance.to_owned(), locks.lost()));
    }

    /// Somebody is about to give a lock back, lost or not.
    pub(crate) fn releasing(&self, instance: &str, name: &str) {
        let mut writing = self.writing.lock().unwrap();
        // Whose lock was lost and taken by somebody else is no longer in the list.
        if writing.holders.get(name).is_some_and(|(holder, _)| holder == instance) {
            let lost = writing.holders.remove(name).is_some_and(|(_, lost)| lost.is_cancelled());
            writing.line(&format!("{} {name} {instance}", if lost { "lost" } else { "releasing" }));
        }
    }

    /// Checks what has been written so far.
    pub(crate) fn check(&self) -> Result<Summary, String> {
        check(&std::fs::read_to_string(&self.path).unwrap())
    }
}

impl Writing {
    fn line(&mut self, line: &str) {
        self.file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// Mutual exclusion and rising tokens.
pub(crate) fn check(history: &str) -> Result<Summary, String> {
    let mut holders: HashMap<&str, &str> = HashMap::new();
    let mut tokens: HashMap<&str, u64> = HashMap::new();
    let mut summary = Summary::default();
    for (number, line) in history.lines().enumerate() {
        let wrong = |what: String| Err(format!("line {}: {line}: {what}", number + 1));
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["acquired", name, instance, token] => {
                summary.acquired += 1;
                if let Some(holder) = holders.insert(name, instance) {
                    return wrong(format!("{holder} has it"));
                }
                if let Ok(token) = token.parse()
                    && let Some(last) = tokens.insert(name, token)
                    && last >= token
                {
                    return wrong(format!("the token before was {last}"));
                }
            }
            [how @ ("releasing" | "lost"), name, instance] => {
                summary.lost += usize::from(how == "lost");
                if holders.remove(name) != Some(instance) {
                    return wrong("it was somebody else's".to_owned());
                }
            }
            _ => return wrong("unknown".to_owned()),
        }
    }
    Ok(summary)
}

#[test]
fn a_history_is_judged() {
    let good = "acquired a one 1\nacquired b two 2\nreleasing a one\nacquired a two 3\nlost a two\nacquired a one 4\n";
    assert_eq!(check(good), Ok(Summary { acquired: 4, lost: 1 }));
    for bad in [
        "acquired a one 1\nacquired a two 2\n",
        "acquired a one 2\nreleasing a one\nacquired a two 2\n",
        "acquired a one -\nreleasing a two\n",
        "nonsense\n",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
