//! The least a lock costs: its two requests, and nothing else. They are written to a socket and read back; those to a database go
//! through its driver.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, Executor};

/// How long those who hand a lock over do nothing before, here and in both other measurements.
const PAUSE: Duration = Duration::from_millis(30);

/// The same statements for each driver, whose types have no common trait that could run them.
macro_rules! updates {
    ($connection:ty, $url:expr, $time:expr, $pause:expr) => {{
        let mut connection = <$connection>::connect($url).await?;
        connection.execute("CREATE TABLE IF NOT EXISTS bare (id INT PRIMARY KEY, claim VARCHAR(32))").await?;
        connection.execute("DELETE FROM bare").await?;
        connection.execute("INSERT INTO bare VALUES (1, '')").await?;
        let (mut taken, end) = (Vec::new(), Instant::now() + $time);
        loop {
            tokio::time::sleep($pause).await;
            let began = Instant::now();
            if began >= end {
                break taken;
            }
            sqlx::query("UPDATE bare SET claim = '0123456789abcdef0123456789abcdef' WHERE id = 1")
                .execute(&mut connection)
                .await?;
            sqlx::query("UPDATE bare SET claim = '' WHERE id = 1").execute(&mut connection).await?;
            taken.push(began.elapsed());
        }
    }};
}

/// Pairs of requests, take and give back.
#[derive(Debug, Default)]
pub(crate) struct Bare {
    /// One right after the other.
    pub(crate) busy: Vec<Duration>,
    /// After a pause each, in which client, server and processors have gone to sleep.
    pub(crate) rested: Vec<Duration>,
}

/// Two updates of a row by its key, each of which is a transaction; as [`measure`].
pub(crate) async fn measure_updates(url: &str, time: Duration) -> Result<Bare> {
    let pairs = async |pause| {
        anyhow::Ok(match url.starts_with("postgres") {
            true => updates!(sqlx::PgConnection, url, time, pause),
            false => updates!(sqlx::MySqlConnection, url, time, pause),
        })
    };
    Ok(Bare { busy: pairs(Duration::ZERO).await?, rested: pairs(PAUSE).await? })
}

/// Runs pairs of requests for a time, and for another one with pauses.
pub(crate) fn measure(kind: &str, port: u16, time: Duration) -> Result<Bare> {
    Ok(Bare { busy: pairs(kind, port, time, Duration::ZERO)?, rested: pairs(kind, port, time, PAUSE)? })
}

fn pairs(kind: &str, port: u16, time: Duration, pause: Duration) -> Result<Vec<Duration>> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_nodelay(true)?;
    let pair: fn(&mut TcpStream, i32) -> Result<()> = match kind {
        "redis" => redis,
        "memcached" => memcached,
        "etcd3+http" | "etcd" => {
            etcd_connect(&mut socket)?;
            etcd
        }
        "zookeeper" => {
            zookeeper_connect(&mut socket)?;
            zookeeper
        }
        other => bail!("no bare requests for {other}"),
    };
    let (mut taken, end) = (Vec::new(), Instant::now() + time);
    for number in 1.. {
        std::thread::sleep(pause);
        let began = Instant::now();
        if began >= end {
            break;
        }
        pair(&mut socket, number)?;
        taken.push(began.elapsed());
    }
    Ok(taken)
}

/// Writes a request and reads until the answer is whole.
fn ask(socket: &mut TcpStream, request: &[u8], whole: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    socket.write_all(request)?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while !whole(&answer) {
        match socket.read(&mut part)? {
            0 => bail!("the server hung up"),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    Ok(answer)
}

fn line(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n")
}

fn redis(socket: &mut TcpStream, _: i32) -> Result<()> {
    ask(socket, b"SET bare_lock 0123456789abcdef0123456789abcdef NX PX 30000\r\n", line)?;
    ask(socket, b"DEL bare_lock\r\n", line)?;
    Ok(())
}

fn memcached(socket: &mut TcpStream, _: i32) -> Result<()> {
    ask(socket, b"add bare_lock 1 30 4\r\nours\r\n", line)?;
    ask(socket, b"delete bare_lock\r\n", line)?;
    Ok(())
}

/// Types and flags of HTTP/2's frames (RFC 9113).
mod http2 {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const END_STREAM: u8 = 1;
    pub(super) const END_HEADERS: u8 = 4;
}

fn http2_frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
}

/// Opens a connection over which the server may send as much as it likes.
fn etcd_connect(socket: &mut TcpStream) -> Result<()> {
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    socket.write_all(&http2_frame(http2::SETTINGS, 0, 0, &[]))?;
    socket.write_all(&http2_frame(http2::WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()))?;
    Ok(())
}

/// One call by gRPC: headers, none of which is compressed, and the message.
fn call(stream: u32, method: &str, message: &[u8]) -> Vec<u8> {
    let byte = |length: usize| u8::try_from(length).unwrap_or_default();
    let path = format!("/etcdserverpb.KV/{method}");
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", &path),
        (":authority", "127.0.0.1"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let literal = |(name, value): (&str, &str)| {
        [&[0, byte(name.len())], name.as_bytes(), &[byte(value.len())], value.as_bytes()].concat()
    };
    let headers: Vec<_> = headers.into_iter().flat_map(literal).collect();
    let message = [&[0, 0, 0, 0, byte(message.len())], message].concat();
    [
        http2_frame(http2::HEADERS, http2::END_HEADERS, stream, &headers),
        http2_frame(http2::DATA, http2::END_STREAM, stream, &message),
    ]
    .concat()
}

/// Whether the answer has ended, and whether there was a message in it: a refusal has none.
fn answered(answer: &[u8], stream: u32) -> (bool, bool) {
    let (mut rest, mut message) = (answer, false);
    while let Some((head, body)) = rest.split_first_chunk::<9>() {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap_or_default();
        let Some(after) = body.get(length..) else { break };
        if head[5..] == stream.to_be_bytes() {
            message |= head[3] == http2::DATA;
            if head[3] == http2::HEADERS && head[4] & http2::END_STREAM > 0 {
                return (true, message);
            }
        }
        rest = after;
    }
    (false, message)
}

fn etcd(socket: &mut TcpStream, number: i32) -> Result<()> {
    const PUT: &[u8] = b"\x0a\x04bare\x12\x04ours";
    const DELETE: &[u8] = b"\x0a\x04bare";
    let first = number.cast_unsigned() * 4 - 3;
    for (stream, method, message) in [(first, "Put", PUT), (first + 2, "DeleteRange", DELETE)] {
        let answer = ask(socket, &call(stream, method, message), |answer| answered(answer, stream).0)?;
        if !answered(&answer, stream).1 {
            bail!("etcd refuses {method}");
        }
    }
    Ok(())
}

/// A frame of ZooKeeper's protocol: its length before it.
fn frame(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], body].concat()
}

fn whole_frame(answer: &[u8]) -> bool {
    let length = answer.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
    length.is_some_and(|length| answer.len() >= 4 + usize::try_from(length).unwrap_or_default())
}

fn text(text: &str) -> Vec<u8> {
    frame(text.as_bytes())
}

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const MULTI: i32 = 14;
const PERSISTENT: i32 = 0;
const EPHEMERAL: i32 = 1;
const NODE_EXISTS: i32 = -110;

/// Protocol version, last zxid, session timeout, session id, password; then what is above the parents of all locks.
fn zookeeper_connect(socket: &mut TcpStream) -> Result<()> {
    let body = [&0_i32.to_be_bytes()[..], &[0; 8], &10_000_i32.to_be_bytes(), &[0; 8], &frame(&[0; 16])].concat();
    ask(socket, &frame(&body), whole_frame).context("connect")?;
    let made = ask(socket, &request(CREATE, &[&node("/bare", PERSISTENT)]), whole_frame)?;
    zookeeper_accepted(&made)
}

/// A request: its number (which nobody here looks at), what it is, its arguments.
fn request(kind: i32, arguments: &[&[u8]]) -> Vec<u8> {
    frame(&[&1_i32.to_be_bytes()[..], &kind.to_be_bytes(), &arguments.concat()].concat())
}

/// What a node is made of: its path, its data, who may do what with it, what kind it is.
fn node(path: &str, mode: i32) -> Vec<u8> {
    const ALL: i32 = 31;
    let acl = [&1_i32.to_be_bytes()[..], &ALL.to_be_bytes(), &text("world"), &text("anyone")].concat();
    [text(path), text("ours"), acl, mode.to_be_bytes().to_vec()].concat()
}

/// A transaction that makes a node and another one below it.
fn both_made(parent: &str, child: &str) -> Vec<u8> {
    /// What it is, whether it is the last one, an error code that is none.
    fn header(kind: i32, last: bool) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &[last.into()], &(-1_i32).to_be_bytes()].concat()
    }
    let create = header(CREATE, false);
    request(MULTI, &[&create, &node(parent, PERSISTENT), &create, &node(child, EPHEMERAL), &header(-1, true)])
}

/// After length, number and zxid comes an error code.
fn zookeeper_accepted(answer: &[u8]) -> Result<()> {
    let code = answer.get(16..20).context("the answer is too short")?;
    if code != [0; 4] && code != NODE_EXISTS.to_be_bytes() {
        bail!("ZooKeeper refuses: {code:?}");
    }
    Ok(())
}

/// Makes a parent and an ephemeral node in it, asks for that one's number in the same round trip, and deletes it.
fn zookeeper(socket: &mut TcpStream, _: i32) -> Result<()> {
    const ANY_VERSION: i32 = -1;
    let parent = format!("/bare/{}", uuid::Uuid::new_v4());
    let child = format!("{parent}/0000000000");
    let first = |answer: &[u8]| {
        answer.first_chunk().map_or(0, |length| 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0))
    };
    let both = |answer: &[u8]| first(answer) > 0 && answer.get(first(answer)..).is_some_and(whole_frame);
    let stat = request(EXISTS, &[&text(&child), &[0]]);
    let answers = ask(socket, &[both_made(&parent, &child), stat].concat(), both)?;
    zookeeper_accepted(&answers)?;
    // Found only if the transaction was done.
    zookeeper_accepted(&answers[first(&answers)..])?;
    zookeeper_accepted(&ask(socket, &request(DELETE, &[&text(&child), &ANY_VERSION.to_be_bytes()]), whole_frame)?)
}
