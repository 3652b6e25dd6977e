//! Being told that a lock file was closed: whoever gives a lock back closes its file, Python as well as we. Local file systems
//! tell (inotify); the servers of others do not.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchDescriptor, WatchMask, Watches};
use scoria_runtime::{CancellationToken, Tasks};
use tokio::sync::watch;

/// Room for a few events; what does not fit stays with the kernel.
const BUFFER: usize = 1024;

/// Files whose closing somebody waits for. The kernel is asked only while there is somebody, and over one descriptor: a user may
/// have 128 of them by default, and ending one takes the kernel milliseconds.
#[derive(Debug, Default)]
pub(super) struct Wakes(Mutex<Option<Arc<Told>>>);

/// What the kernel tells.
#[derive(Debug)]
struct Told {
    kernel: Mutex<Watches>,
    files: Mutex<HashMap<WatchDescriptor, watch::Sender<()>>>,
    ended: CancellationToken,
}

/// Sees one lock file being closed.
#[derive(Debug)]
pub(super) struct Wake {
    told: Arc<Told>,
    file: WatchDescriptor,
    closed: watch::Receiver<()>,
}

impl Wakes {
    /// From now on: what happens to a file after this is told.
    pub(super) fn on(&self, path: &Path) -> io::Result<Wake> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match &*told {
            Some(told) => told.clone(),
            None => told.insert(Told::start()?).clone(),
        };
        told.watch(path)
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        if let Some(told) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            told.ended.cancel();
        }
    }
}

impl Told {
    fn start() -> io::Result<Arc<Self>> {
        let events = Inotify::init()?.into_event_stream([0; BUFFER])?;
        let (kernel, ended) = (Mutex::new(events.watches()), CancellationToken::new());
        let told = Arc::new(Self { kernel, files: Mutex::default(), ended });
        let listening = told.clone();
        drop(Tasks::new().spawn("lock-files-closed", async move {
            tokio::select! {
                biased;
                () = listening.ended.cancelled() => {}
                () = listening.listen(events) => {}
            }
        }));
        Ok(told)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, watch::Sender<()>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kernel(&self) -> Watches {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watch(self: Arc<Self>, path: &Path) -> io::Result<Wake> {
        let mask = WatchMask::CLOSE_WRITE | WatchMask::DELETE_SELF | WatchMask::ATTRIB;
        let mut files = self.files();
        let file = self.kernel().add(path, mask)?;
        let closed = files.entry(file.clone()).or_default().subscribe();
        drop(files);
        Ok(Wake { told: self, file, closed })
    }

    /// Until the kernel tells nothing more; those who wait look now and then.
    async fn listen(&self, mut events: EventStream<[u8; BUFFER]>) {
        while let Some(Ok(event)) = events.next().await {
            let mut files = self.files();
            if event.mask != EventMask::CLOSE_WRITE {
                // Removed, perhaps: then the next one of this name is another file.
                files.remove(&event.wd);
                let _ = self.kernel().remove(event.wd);
            } else if let Some(file) = files.get(&event.wd) {
                file.send_replace(());
            }
        }
    }
}

impl Wake {
    /// Resolves when it was closed or removed since the last time; false when it is not watched any longer.
    pub(super) async fn told(&mut self) -> bool {
        self.closed.changed().await.is_ok()
    }
}

impl Drop for Wake {
    fn drop(&mut self) {
        let mut files = self.told.files();
        // Ours is still counted.
        if files.get(&self.file).is_some_and(|file| file.receiver_count() <= 1) {
            files.remove(&self.file);
            // The kernel does not watch a removed file any more.
            let _ = self.told.kernel().remove(self.file.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::lock_file;
    use super::*;
    use crate::Mode;

    #[tokio::test]
    async fn closing_and_removing_are_told_and_opening_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cinder-a");
        let open = || lock_file::open(&path, Mode::Exclusive).unwrap();
        let (held, wakes) = (open(), Wakes::default());
        let (mut one, mut two) = (wakes.on(&path).unwrap(), wakes.on(&path).unwrap());
        let other = open();
        let moment = Duration::from_millis(20);
        assert!(timeout(moment, one.told()).await.is_err());
        drop(held);
        for wake in [&mut one, &mut two] {
            assert!(timeout(Duration::from_secs(5), wake.told()).await.unwrap());
        }
        assert!(timeout(moment, one.told()).await.is_err(), "told once");
        drop(two);
        std::fs::remove_file(&path).unwrap();
        assert!(!timeout(Duration::from_secs(5), one.told()).await.unwrap());
        drop(other);
        assert!(wakes.on(&path).is_err(), "there is no such file");
        drop(one);
        let told = wakes.0.lock().unwrap().clone().unwrap();
        assert!(told.files().is_empty());
    }
}
