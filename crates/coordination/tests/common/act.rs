//! What a process of ours does as a peer.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::time::Duration;

use scoria_coordination::Coordinator;
use scoria_runtime::Tasks;

use super::locks::{coordinator, request, soon};
use super::peer::CHILD;

/// What a peer of ours does: `hold NAME` until a line comes, `hold-many NUMBER`, or `count NAME FILE ROUNDS` with four tasks.
/// Without the variable there is nothing to do.
pub(crate) async fn act() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let coordinator = coordinator(words[0]).await;
    match words[1..] {
        ["hold", name] => {
            println!("\nwaiting");
            let held = soon(&coordinator, name).await;
            println!("\nheld");
            listen().await;
            // What a process that was stopped has to ask before anything else.
            println!("\n{}", if held.is_lost() { "lost" } else { "still held" });
            if held.release().await.is_ok() {
                println!("\nreleased");
            }
        }
        ["hold-many", number] => {
            let mut all = Vec::new();
            for n in 0..number.parse().unwrap() {
                all.push(soon(&coordinator, &format!("many-{n}")).await);
            }
            println!("\nheld");
            listen().await;
        }
        ["count", name, file, rounds] => {
            let rounds: u32 = rounds.parse().unwrap();
            let tasks = Tasks::new();
            let counting: Vec<_> = (0..4)
                .map(|_| tasks.spawn("count", count(coordinator.clone(), name.to_owned(), file.into(), rounds)))
                .collect();
            for task in counting {
                task.await.unwrap();
            }
        }
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}

/// Waits for a line without stopping the executor.
async fn listen() {
    let (said, heard) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        std::io::stdin().read_line(&mut String::new()).unwrap();
        let _ = said.send(());
    });
    heard.await.unwrap();
}

/// Reads, adds one and writes, under the lock.
pub(crate) async fn count(coordinator: Coordinator, name: String, file: std::path::PathBuf, rounds: u32) {
    for _ in 0..rounds {
        let held = coordinator.acquire(request(&name)).await.unwrap();
        let count: u32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        tokio::task::yield_now().await;
        assert!(!held.is_lost());
        std::fs::write(&file, (count + 1).to_string()).unwrap();
        held.release().await.unwrap();
        // Processes are not always served in order: let the others come in.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
