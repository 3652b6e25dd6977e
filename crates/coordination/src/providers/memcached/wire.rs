//! Memcached's text protocol, as far as locks need it (`doc/protocol.txt` of memcached).
//!
//! Each change is followed by a look at the same key in the same write: one round trip tells what was done, what is there now,
//! and its unique number for the next change.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Longest key that memcached takes.
pub(super) const LONGEST_KEY: usize = 250;

/// Longest line of an answer that we read.
const LONGEST_LINE: u64 = 2048;

/// Longest value that we read. A member id of Python is 43 bytes, ours is 76.
const LONGEST_VALUE: usize = 16 * 1024;

/// Most lines of an answer that has several.
const MOST_LINES: usize = 1000;

/// What a value is marked with: tooz reads 1 as raw bytes.
const RAW_BYTES: u32 = 1;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// If there is none.
    Add,
    /// If nobody has written it since it had this unique number.
    Swap(u64),
    /// Whatever is there.
    Set,
}

/// When a record goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expiry {
    /// After so many whole seconds, at most thirty days.
    In(u32),
    /// At once. The look that follows makes the server free its memory too.
    Now,
}

/// One command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Is anybody there?
    Version,
    /// How the server was started.
    Settings,
    /// Looks at a record.
    Look { key: &'a str },
    /// Writes a record, then looks at it.
    Write { verb: Verb, key: &'a str, value: &'a str, expiry: Expiry },
    /// Removes a record whosever it is.
    Delete { key: &'a str },
}

/// The parts of an answer, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    /// One line.
    line: bool,
    /// A record, or none.
    record: bool,
    /// Lines up to `END`.
    lines: bool,
}

/// An answer. What the command has no use for is empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// `STORED`, `NOT_STORED`, `EXISTS`, `NOT_FOUND`, `DELETED`, `VERSION …`, or one that begins with an error.
    pub(super) line: String,
    /// What is there.
    pub(super) record: Option<Record>,
    /// The lines of a list.
    pub(super) lines: Vec<String>,
}

/// What the server has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) value: Vec<u8>,
    /// Another one after each write, by whoever. It counts from 1 again when the server is started again.
    pub(super) unique: u64,
}

impl Command<'_> {
    /// Puts it on the wire. The key has neither blanks nor control characters.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Version => b"version\r\n".to_vec(),
            Self::Settings => b"stats settings\r\n".to_vec(),
            Self::Look { key } => format!("gets {key}\r\n").into_bytes(),
            Self::Delete { key } => format!("delete {key}\r\n").into_bytes(),
            Self::Write { verb, key, value, expiry } => {
                let (verb, unique) = match verb {
                    Verb::Add => ("add", String::new()),
                    Verb::Swap(unique) => ("cas", format!(" {unique}")),
                    Verb::Set => ("set", String::new()),
                };
                let seconds = match expiry {
                    Expiry::In(seconds) => i64::from(*seconds),
                    Expiry::Now => -1,
                };
                let length = value.len();
                let write = format!("{verb} {key} {RAW_BYTES} {seconds} {length}{unique}\r\n{value}\r\n");
                format!("{write}gets {key}\r\n").into_bytes()
            }
        }
    }

    /// What will be answered.
    pub(super) fn expected(&self) -> Expected {
        let none = Expected { line: false, record: false, lines: false };
        match self {
            Self::Version | Self::Delete { .. } => Expected { line: true, ..none },
            Self::Settings => Expected { lines: true, ..none },
            Self::Look { .. } => Expected { record: true, ..none },
            Self::Write { .. } => Expected { line: true, record: true, ..none },
        }
    }
}

impl Answer {
    /// Why the server did not do it, if it says so.
    pub(super) fn refused(&self) -> Option<&str> {
        is_error(&self.line).then_some(self.line.as_str())
    }

    /// Reads one answer.
    pub(super) async fn read(from: &mut (impl AsyncBufRead + Unpin), expected: Expected) -> io::Result<Self> {
        let mut answer = Self::default();
        if expected.line {
            answer.line = line(from).await?;
        }
        if expected.record {
            answer.read_record(from).await?;
        }
        if expected.lines {
            answer.read_lines(from).await?;
        }
        Ok(answer)
    }

    async fn read_lines(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        for _ in 0..MOST_LINES {
            let line = line(from).await?;
            if is_error(&line) {
                self.line = line;
                return Ok(());
            }
            if line == "END" {
                return Ok(());
            }
            self.lines.push(line);
        }
        Err(nonsense("an endless list"))
    }

    async fn read_record(&mut self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<()> {
        let head = line(from).await?;
        if head == "END" {
            return Ok(());
        }
        if is_error(&head) {
            // An error of the command before is the one that counts.
            if self.refused().is_none() {
                self.line = head;
            }
            return Ok(());
        }
        let words: Vec<_> = head.split(' ').collect();
        let ["VALUE", _key, _flags, length, unique] = words[..] else { return Err(nonsense(&head)) };
        let (Ok(length), Ok(unique)) = (length.parse::<usize>(), unique.parse()) else { return Err(nonsense(&head)) };
        if length > LONGEST_VALUE {
            return Err(nonsense(&format!("a value of {length} bytes, which is no lock's")));
        }
        let mut value = vec![0; length + 2];
        from.read_exact(&mut value).await?;
        if !value.ends_with(b"\r\n") || line(from).await? != "END" {
            return Err(nonsense("a value without its end"));
        }
        value.truncate(length);
        self.record = Some(Record { value, unique });
        Ok(())
    }
}

/// One line without its end.
pub(super) async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match line.strip_suffix(b"\r\n") {
        Some(line) => Ok(String::from_utf8_lossy(line).into_owned()),
        None => Err(nonsense(&String::from_utf8_lossy(&line))),
    }
}

fn is_error(line: &str) -> bool {
    line.starts_with("ERROR") || line.starts_with("CLIENT_ERROR") || line.starts_with("SERVER_ERROR")
}

fn nonsense(what: &str) -> io::Error {
    let start: String = what.chars().take(80).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("memcached does not answer like that: '{start}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Command<'_> = Command::Write { verb: Verb::Swap(7), key: "k", value: "ab", expiry: Expiry::In(3) };

    async fn read(mut text: &[u8], command: Command<'_>) -> io::Result<Answer> {
        let answer = Answer::read(&mut text, command.expected()).await?;
        assert!(text.is_empty(), "not read to its end");
        Ok(answer)
    }

    #[test]
    fn commands_are_written_as_memcached_reads_them() {
        assert_eq!(WRITE.encode(), b"cas k 1 3 2 7\r\nab\r\ngets k\r\n");
        let away = Command::Write { verb: Verb::Swap(7), key: "k", value: "", expiry: Expiry::Now };
        assert_eq!(away.encode(), b"cas k 1 -1 0 7\r\n\r\ngets k\r\n");
        let add = Command::Write { verb: Verb::Add, key: "k", value: "ab", expiry: Expiry::In(30) };
        assert_eq!(add.encode(), b"add k 1 30 2\r\nab\r\ngets k\r\n");
    }

    #[tokio::test]
    async fn answers_are_read_with_what_is_there_now() {
        let answer = read(b"STORED\r\nVALUE k 1 2 8\r\nab\r\nEND\r\n", WRITE).await.unwrap();
        assert_eq!(answer.line, "STORED");
        assert_eq!(answer.record, Some(Record { value: b"ab".to_vec(), unique: 8 }));
        let answer = read(b"NOT_FOUND\r\nEND\r\n", WRITE).await.unwrap();
        assert_eq!((answer.line.as_str(), answer.record.as_ref(), answer.refused()), ("NOT_FOUND", None, None));
        // A value may hold what looks like the protocol.
        let answer = read(b"VALUE k 1 7 8\r\nEND\r\n\r\n\r\nEND\r\n", Command::Look { key: "k" }).await.unwrap();
        assert_eq!(answer.record.unwrap().value, b"END\r\n\r\n");
        let answer = read(b"STAT cas_enabled yes\r\nSTAT x y\r\nEND\r\n", Command::Settings).await.unwrap();
        assert_eq!(answer.lines, ["STAT cas_enabled yes", "STAT x y"]);
    }

    #[tokio::test]
    async fn an_error_of_the_server_is_an_answer() {
        let full = b"SERVER_ERROR out of memory storing object\r\nEND\r\n";
        assert_eq!(read(full, WRITE).await.unwrap().refused(), Some("SERVER_ERROR out of memory storing object"));
        assert_eq!(read(b"ERROR\r\n", Command::Settings).await.unwrap().refused(), Some("ERROR"));
    }

    #[tokio::test]
    async fn anything_else_is_refused_within_bounds() {
        let endless = [b'x'; 5000];
        let huge = b"VALUE k 1 999999999999 8\r\n";
        let cut = b"VALUE k 1 2 8\r\na";
        let look = Command::Look { key: "k" };
        for bad in [&b""[..], b"STORED", b"\r\n", b"VALUE k\r\n", b"VALUE k 1 2 8\r\nabcd\r\n", &endless, huge, cut] {
            assert!(Answer::read(&mut &bad[..], look.expected()).await.is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            for command in [Command::Version, Command::Settings, Command::Look { key: "k" }, WRITE] {
                let _ = runtime.block_on(Answer::read(&mut &bytes[..], command.expected()));
            }
        }
    }
}
