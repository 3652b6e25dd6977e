//! A TCP proxy between a program and its server that fails on demand.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use anyhow::{Context, Result};

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Hands everything on.
    Up,
    /// Hands nothing on in either direction and keeps the connections open: a partition, a paused server.
    Stalled,
    /// Hands requests on and throws answers away: the request is carried out, its answer never comes.
    AnswersLost,
    /// Refuses: open connections are cut, new ones closed at once.
    Cut,
}

/// A TCP proxy on a port of 127.0.0.1 in front of one server. Threads, not tasks: it works whatever the tested runtime does.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    link: Mutex<Link>,
    changed: Condvar,
    open: Mutex<Vec<Weak<Pair>>>,
    closing: AtomicBool,
}

/// The two sockets of one proxied connection.
#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Proxy {
    /// A proxy in front of `127.0.0.1:server_port`.
    ///
    /// # Errors
    /// No port or no thread to be had.
    pub fn start(server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the proxy")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            server: (Ipv4Addr::LOCALHOST, server_port).into(),
            link: Mutex::new(Link::Up),
            changed: Condvar::new(),
            open: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::Builder::new().name("proxy".into()).spawn(move || accept(&listener, &accepting))?;
        Ok(Self { port, shared })
    }

    /// The port to connect to instead of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes what happens from now on, on open connections too.
    pub fn set(&self, link: Link) {
        *self.shared.link() = link;
        self.shared.changed.notify_all();
        if link == Link::Cut {
            self.shared.cut_all();
        }
    }

    /// Cuts every open connection; new ones work.
    pub fn cut(&self) {
        self.shared.cut_all();
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        lock(&self.shared.open).iter().filter(|pair| pair.strong_count() > 0).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        self.set(Link::Cut);
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn link(&self) -> MutexGuard<'_, Link> {
        lock(&self.link)
    }

    fn cut_all(&self) {
        for pair in lock(&self.open).drain(..).filter_map(|pair| pair.upgrade()) {
            pair.close();
        }
    }

    /// Waits while the link is stalled; says whether bytes of this direction go on.
    fn hands_on(&self, answers: bool) -> bool {
        let mut link = self.link();
        while *link == Link::Stalled {
            link = self.changed.wait(link).unwrap_or_else(PoisonError::into_inner);
        }
        *link != Link::Cut && !(answers && *link == Link::AnswersLost)
    }
}

impl Pair {
    fn close(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        if *shared.link() == Link::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(shared.server) else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let pair = Arc::new(Pair { client, server });
        lock(&shared.open).push(Arc::downgrade(&pair));
        for answers in [false, true] {
            let (shared, pair) = (Arc::clone(shared), Arc::clone(&pair));
            thread::spawn(move || {
                copy(&shared, &pair, answers);
                pair.close();
            });
        }
    }
}

fn copy(shared: &Shared, pair: &Pair, answers: bool) {
    let (mut from, mut to) = if answers { (&pair.server, &pair.client) } else { (&pair.client, &pair.server) };
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if shared.hands_on(answers) && to.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that answers every byte with itself and says how many it got.
    fn echo() -> (u16, Arc<Mutex<usize>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(0));
        let counting = Arc::clone(&seen);
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let counting = Arc::clone(&counting);
                thread::spawn(move || {
                    let mut byte = [0];
                    while let Ok(1) = client.read(&mut byte) {
                        *lock(&counting) += 1;
                        let _ = client.write_all(&byte);
                    }
                });
            }
        });
        (port, seen)
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        client
    }

    fn answered(mut client: &TcpStream) -> bool {
        let mut byte = [0];
        client.write_all(b"x").is_ok() && matches!(client.read(&mut byte), Ok(1))
    }

    #[test]
    fn it_hands_on_stalls_swallows_and_cuts() {
        let (port, seen) = echo();
        let proxy = Proxy::start(port).unwrap();
        let client = connect(&proxy);
        assert!(answered(&client));
        assert_eq!(proxy.connections(), 1);

        proxy.set(Link::Stalled);
        assert!(!answered(&client));
        assert_eq!(*lock(&seen), 1, "a stalled request must not reach the server");
        proxy.set(Link::Up);
        assert!(matches!((&client).read(&mut [0]), Ok(1)), "what was stalled is handed on later");

        proxy.set(Link::AnswersLost);
        assert!(!answered(&client));
        assert_eq!(*lock(&seen), 3, "the request is carried out although its answer is lost");

        proxy.set(Link::Cut);
        assert!(!answered(&client) && !answered(&connect(&proxy)));
        proxy.set(Link::Up);
        assert!(answered(&connect(&proxy)));
        proxy.cut();
        assert!(answered(&connect(&proxy)));
    }
}
