//! What a process of ours does as a peer.

use crate::coordinator;
use crate::locks::soon;
use crate::peer::{CHILD, Peer};

/// This program again, running [`child`] only, with locks in the database at `url`.
pub(crate) fn process(url: &str, backend_url: &str, order: &[&str]) -> Peer {
    Peer::ours_in("peers::child", url, &[&[backend_url], order].concat())
}

/// What [`process`] runs: `hold NAME` until a line comes, or `hundred NAME`. Without the variable there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(line) = std::env::var(CHILD) else { return };
    let words: Vec<_> = line.split(' ').collect();
    let coordinator = coordinator(words[0], "child", words[1]).await;
    match words[2..] {
        ["hold", name] => {
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
        _ => panic!("unknown order: {line}"),
    }
    coordinator.close().await;
}
