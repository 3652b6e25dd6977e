//! The file locks beside real tooz processes and other processes of our own.
//!
//! `SCORIA_PEER_VENV` names a Python environment with tooz (default the repository's `.tools/peer-venv`).

mod common {
    pub(crate) mod peer;
}

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::peer::{CHILD, Peer, python_tries};
use scoria_coordination::providers::FileProvider;
use scoria_coordination::{Coordinator, Error, LockRequest, LockSet, Mode, Options, Owner, WaitPolicy};
use scoria_runtime::{Deadline, Tasks};

fn url(directory: &Path) -> String {
    format!("file://{}", directory.display())
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

async fn coordinator(directory: &Path, exclusive_directory: bool) -> Coordinator {
    let options = Options { exclusive_directory, heartbeat: Duration::from_millis(50), ..Options::default() };
    Coordinator::new(Arc::new(FileProvider::in_directory(directory, &options).await.unwrap()))
}

fn request() -> LockRequest {
    let owner = Owner { operation: "extend_volume".into(), request_id: Some("req-7".into()), resource: None };
    LockRequest::new(owner)
}

async fn once(coordinator: &Coordinator) -> Result<LockSet, Error> {
    coordinator.acquire(request().exclusive("a").wait(WaitPolicy::No)).await
}

async fn soon(coordinator: &Coordinator) -> LockSet {
    let wait = WaitPolicy::Until(Deadline::after(Duration::from_secs(20)));
    coordinator.acquire(request().exclusive("a").wait(wait)).await.unwrap()
}

/// What [`Peer::ours`] runs: `hold NAME`, `count NAME FILE ROUNDS` with four tasks, or `full NAME`. Without the variable there is
/// nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let directory = words[0].strip_prefix("file://").unwrap();
    let coordinator = coordinator(Path::new(directory), false).await;
    match words[1..] {
        ["hold", _] => {
            println!("\nwaiting");
            let held = soon(&coordinator).await;
            println!("\nheld");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            held.release().await.unwrap();
            println!("\nreleased");
        }
        ["count", _, file, rounds] => {
            let rounds: u32 = rounds.parse().unwrap();
            let tasks = Tasks::new();
            let counting: Vec<_> =
                (0..4).map(|_| tasks.spawn("count", count(coordinator.clone(), file.into(), rounds))).collect();
            for task in counting {
                task.await.unwrap();
            }
        }
        ["full", _] => fill_up(&coordinator).await,
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}

async fn count(coordinator: Coordinator, file: std::path::PathBuf, rounds: u32) {
    for _ in 0..rounds {
        let held = coordinator.acquire(request().exclusive("a")).await.unwrap();
        let count: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        tokio::task::yield_now().await;
        std::fs::write(&file, (count + 1).to_string()).unwrap();
        held.release().await.unwrap();
        // Processes are not served in order: let the others come in.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_holds_and_we_stay_out_until_it_lets_go() {
    let directory = directory();
    let ours = coordinator(directory.path(), false).await;
    let mut python = Peer::python(&url(directory.path()), &["hold", "a"]);
    python.says(&["held"]);
    assert!(matches!(once(&ours).await, Err(Error::Busy { .. })));
    let shared = request().shared("a").wait(WaitPolicy::Until(Deadline::after(Duration::from_millis(50))));
    let error = ours.acquire(shared).await.unwrap_err().to_string();
    let process = format!("python[{}]", python.id());
    assert!(error.contains(&process), "{error} does not name {process}");

    let holders = ours.holders().await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:#?}");
    assert_eq!((holders[0].name.as_str(), holders[0].mode, holders[0].held), ("a", Mode::Exclusive, true));

    let waiter = ours.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    python.let_go();
    let held = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!(python_tries(&url(directory.path()), "a"), "busy");
    held.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_hold_and_python_stays_out_until_we_let_go() {
    let directory = directory();
    let ours = coordinator(directory.path(), false).await;
    for mode in [Mode::Exclusive, Mode::Shared] {
        let wanted = match mode {
            Mode::Exclusive => request().exclusive("a"),
            Mode::Shared => request().shared("a"),
        };
        let held = ours.acquire(wanted).await.unwrap();
        assert_eq!(python_tries(&url(directory.path()), "a"), "busy", "{mode:?}");
        let mut python = Peer::python(&url(directory.path()), &["hold", "a"]);
        python.says(&["waiting"]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        held.verify().await.unwrap();
        held.release().await.unwrap();
        python.says(&["held"]);
        assert!(matches!(once(&ours).await, Err(Error::Busy { .. })), "the lock file stayed the same one");
        python.let_go();
    }
    assert_eq!(std::fs::metadata(directory.path().join("cinder-a")).unwrap().len(), 0, "tooz leaves it empty");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_count_together_and_never_are_two_inside() {
    let directory = directory();
    let file = directory.path().join("counter");
    std::fs::write(&file, "0").unwrap();
    let path = file.to_str().unwrap();
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(Peer::python(&url(directory.path()), &["count", "a", path, "40"]));
        peers.push(Peer::ours(&url(directory.path()), &["count", "a", path, "10"]));
    }
    count(coordinator(directory.path(), false).await, file.clone(), 40).await;
    peers.iter_mut().for_each(Peer::succeeds);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), (3 * 40 + 3 * 4 * 10 + 40).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_holder_frees_its_lock_and_leaves_no_trace() {
    let directory = directory();
    let ours = coordinator(directory.path(), false).await;
    let mut python = Peer::python(&url(directory.path()), &["hold", "a"]);
    python.says(&["held"]);
    python.kill();
    once(&ours).await.unwrap().release().await.unwrap();

    let mut other = Peer::ours(&url(directory.path()), &["hold", "a"]);
    other.says(&["held"]);
    assert_eq!(python_tries(&url(directory.path()), "a"), "busy");
    let holders = ours.holders().await.unwrap();
    assert_eq!(holders.len(), 1, "{holders:#?}");
    assert!(holders[0].held && holders[0].since.is_some() && holders[0].host.is_some());
    assert_eq!(
        (holders[0].owner.operation.as_str(), holders[0].owner.request_id.as_deref()),
        ("extend_volume", Some("req-7"))
    );

    let mut waiting = Peer::ours(&url(directory.path()), &["hold", "a"]);
    waiting.says(&["waiting"]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let held: Vec<_> = ours.holders().await.unwrap().iter().map(|holder| holder.held).collect();
    assert_eq!(held, [true, false], "another process's waiter is listed");
    waiting.kill();

    other.kill();
    assert_eq!(ours.holders().await.unwrap(), []);
    assert_eq!(python_tries(&url(directory.path()), "a"), "got");
    let registers = std::fs::read_dir(directory.path().join(".scoria-holders")).unwrap().count();
    assert_eq!(registers, 1, "those of the dead are gone, ours is left");
    once(&ours).await.unwrap().release().await.unwrap();
}

/// What Cinder's clean-up does: it removes lock files without holding them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_removed_under_a_waiter_does_not_make_two_holders_of_us() {
    let directory = directory();
    let (one, two) = (coordinator(directory.path(), false).await, coordinator(directory.path(), false).await);
    let mut python = Peer::python(&url(directory.path()), &["hold", "a"]);
    python.says(&["held"]);
    let waiter = one.clone();
    let waiting = Tasks::new().spawn("waiter", async move { soon(&waiter).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    std::fs::remove_file(directory.path().join("cinder-a")).unwrap();
    let newcomer = once(&two).await.expect("a new file");
    // Now the waiter can lock what it has open, and must not take that for the lock.
    python.let_go();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!waiting.is_finished(), "two holders");
    newcomer.verify().await.unwrap();
    newcomer.release().await.unwrap();
    let held = tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
    assert_eq!(python_tries(&url(directory.path()), "a"), "busy");
    held.release().await.unwrap();
}

/// Why lock files are left beside Python: it does not notice that the file it waits for is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_lock_files_is_for_directories_without_python() {
    let directory = directory();
    let ours = coordinator(directory.path(), true).await;
    let held = once(&ours).await.unwrap();
    let mut python = Peer::python(&url(directory.path()), &["hold", "a"]);
    python.says(&["waiting"]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    held.release().await.unwrap();
    python.says(&["held"]);
    once(&ours).await.expect("if this is refused, Python has learned to look, and files may go in every directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_killed_holders_left_is_swept_only_in_a_directory_of_our_own() {
    let directory = directory();
    let lock_file = directory.path().join("cinder-a");
    let mut other = Peer::ours(&url(directory.path()), &["hold", "a"]);
    other.says(&["held"]);
    drop(coordinator(directory.path(), true).await);
    assert!(lock_file.exists(), "what is held is not swept");
    other.kill();
    drop(coordinator(directory.path(), false).await);
    assert!(lock_file.exists(), "beside Python it stays");
    drop(coordinator(directory.path(), true).await);
    assert!(!lock_file.exists());
}

/// Takes locks until the file system has no room for another file.
async fn fill_up(coordinator: &Coordinator) {
    let wanted = |n: usize| request().exclusive(format!("full-{n}")).wait(WaitPolicy::No);
    let mut held = Vec::new();
    let error = loop {
        match coordinator.acquire(wanted(held.len())).await {
            Ok(set) => held.push(set),
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable(), "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(held.len(), 6, "as many as there are files, though the list of holders was full before");
    assert_eq!(coordinator.holders().await.unwrap().len(), 6);
    for set in held {
        set.verify().await.unwrap();
        set.release().await.unwrap();
    }
    let again = coordinator.acquire(wanted(5)).await.expect("its file exists");
    again.release().await.unwrap();
}

/// A file system of one page and nine inodes: the root, the register with its directory, and six lock files.
#[test]
fn a_full_disk_refuses_new_locks_with_the_reason_and_leaves_what_is_held() {
    let directory = directory();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=4k,nr_inodes=9 none \"$1\" && exec \"$2\" --exact child --nocapture");
    command.arg("sh").arg(directory.path()).arg(std::env::current_exe().unwrap());
    command.env(CHILD, format!("{} full a", url(directory.path())));
    let status = command.status().expect("unshare (Debian package util-linux)");
    assert!(status.success(), "needs leave to mount in a user namespace of its own: {status}");
}
