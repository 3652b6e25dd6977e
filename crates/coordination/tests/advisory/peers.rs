//! What a process of ours does as a peer.

use std::time::Duration;

use scoria_coordination::Coordinator;
use scoria_runtime::Tasks;

use crate::coordinator;
use crate::locks::soon;
use crate::peer::{CHILD, Peer};

/// This program again, running [`child`] only.
pub(crate) fn ours(url: &str, arguments: &[&str]) -> Peer {
    Peer::ours_in("peers::child", url, arguments)
}

/// What [`ours`] runs: `hold NAME` until a line comes, `hundred NAME`, or `count NAME FILE ROUNDS` with four tasks. Without
/// the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let coordinator = coordinator(words[0]).await;
    match words[1..] {
        ["hold", name] => {
            println!("\nwaiting");
            let held = soon(&coordinator, name).await;
            println!("\nheld");
            std::io::stdin().read_line(&mut String::new()).unwrap();
            // Nothing may come before this, neither a timer nor an answer.
            println!("\n{}", if held.is_lost() { "lost" } else { "still held" });
            let released = held.release().await.is_ok();
            println!("\n{}", if released { "released" } else { "was lost" });
        }
        ["hundred", name] => {
            let mut held = Vec::new();
            for n in 0..100 {
                held.push(soon(&coordinator, &format!("{name}-{n}")).await);
            }
            println!("\nheld");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        ["count", name, file, rounds] => {
            let rounds: u32 = rounds.parse().unwrap();
            let tasks = Tasks::new();
            let one = |_| tasks.spawn("count", count(coordinator.clone(), name.to_owned(), file.into(), rounds));
            for task in (0..4).map(one).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        }
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}

/// Counts in a file under the lock.
pub(crate) async fn count(coordinator: Coordinator, name: String, file: std::path::PathBuf, rounds: u32) {
    for _ in 0..rounds {
        let held = soon(&coordinator, &name).await;
        let count: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        tokio::task::yield_now().await;
        std::fs::write(&file, (count + 1).to_string()).unwrap();
        held.release().await.unwrap();
        // tooz looks once per second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
