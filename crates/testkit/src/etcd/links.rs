//! Links between the members of a cluster that fail on demand.
//!
//! Every member knows the others by the same addresses, so whoever listens there could not tell who comes. But a socket file is
//! looked for in the working directory: each member has one of its own, in which the others' sockets lead to links of its own.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::faults::{Link, Proxy};

/// From each member to each other one.
#[derive(Debug)]
pub(super) struct Links {
    links: Vec<OneWay>,
    closing: Arc<AtomicBool>,
}

/// By which a member opens connections to another one.
#[derive(Debug)]
struct OneWay {
    ends: [usize; 2],
    socket: PathBuf,
    proxy: Proxy,
}

impl Links {
    /// Between the members with these ports.
    pub(super) fn start(dir: &Path, ports: &[u16]) -> Result<Self> {
        let mut all = Self { links: Vec::new(), closing: Arc::default() };
        for from in 0..ports.len() {
            let directory = working_directory(dir, from);
            std::fs::create_dir(&directory)?;
            for to in (0..ports.len()).filter(|to| *to != from) {
                let (proxy, socket) = (Proxy::start(ports[to])?, directory.join(socket(to)));
                let listener = UnixListener::bind(&socket).with_context(|| format!("{}", socket.display()))?;
                let (port, closing) = (proxy.port(), Arc::clone(&all.closing));
                thread::Builder::new().name("etcd-link".into()).spawn(move || accept(&listener, port, &closing))?;
                all.links.push(OneWay { ends: [from, to], socket, proxy });
            }
        }
        Ok(all)
    }

    /// Changes all that begin or end at a member.
    pub(super) fn set(&self, member: usize, link: Link) {
        for one_way in self.links.iter().filter(|one_way| one_way.ends.contains(&member)) {
            one_way.proxy.set(link);
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        for one_way in &self.links {
            // Wakes the accepting thread, which then sees that it is over.
            let _ = UnixStream::connect(&one_way.socket);
        }
    }
}

/// Where a member runs.
pub(super) fn working_directory(dir: &Path, member: usize) -> PathBuf {
    dir.join(format!("at-m{member}"))
}

/// By which address all know a member.
pub(super) fn url(member: usize) -> String {
    format!("unix://{}", socket(member))
}

fn socket(member: usize) -> String {
    format!("m{member}:0")
}

fn accept(listener: &UnixListener, port: u16, closing: &AtomicBool) {
    for client in listener.incoming().flatten() {
        if closing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(proxy) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { continue };
        let _ = proxy.set_nodelay(true);
        let pair = Arc::new((client, proxy));
        for answers in [false, true] {
            let pair = Arc::clone(&pair);
            thread::spawn(move || {
                let (mut client, mut proxy) = (&pair.0, &pair.1);
                let _ = if answers { io::copy(&mut proxy, &mut client) } else { io::copy(&mut client, &mut proxy) };
                let _ = (client.shutdown(Shutdown::Both), proxy.shutdown(Shutdown::Both));
            });
        }
    }
}
