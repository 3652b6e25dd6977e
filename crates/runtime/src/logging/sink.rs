//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::facility::{Facility, severity};
use super::line::Record;
use super::{Destination, LogError};

/// The longest message that a datagram is certain to carry: sockets take some 200 KiB.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// An open destination.
#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    Stdout,
    File(PathBuf, Mutex<File>),
    Syslog(Socket, Facility, String),
    Journal(Socket, Facility, String),
}

impl Output {
    pub(super) fn open(destination: Destination) -> Result<Self, LogError> {
        Ok(match destination {
            Destination::Stderr => Self::Stderr,
            Destination::Stdout => Self::Stdout,
            Destination::File(path) => match append(&path) {
                Ok(file) => Self::File(path, Mutex::new(file)),
                Err(source) => return Err(LogError::File { path, source }),
            },
            Destination::Syslog { socket, facility, name } => Self::Syslog(Socket::at(socket), facility, name),
            Destination::Journal { socket, facility, name } => Self::Journal(Socket::at(socket), facility, name),
        })
    }

    /// A line that cannot be delivered (disk full, directory gone, syslog stuck) goes to standard error; one that nobody takes
    /// is lost: there is nobody left to tell.
    pub(super) fn write(&self, line: &str, record: &Record<'_>) {
        let written = match self {
            Self::Stderr => Err(io::ErrorKind::Unsupported.into()),
            Self::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Self::File(path, file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                write_to(path, &mut file, line)
            }
            Self::Syslog(socket, facility, name) => socket.send(&syslog(*facility, name, line, record)),
            Self::Journal(socket, facility, name) => socket.send(&journal(*facility, name, line, record)),
        };
        if written.is_err() {
            let _ = io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// Opens the file afresh when somebody has moved it away, as oslo.log's watched file does: log rotation needs no signal.
fn write_to(path: &Path, file: &mut File, line: &str) -> io::Result<()> {
    let open = file.metadata()?;
    let same = std::fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino()));
    if !same {
        *file = append(path)?;
    }
    file.write_all(line.as_bytes())
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A socket that takes datagrams. Who listens there may come later than we, and be started anew.
#[derive(Debug)]
pub(super) struct Socket {
    path: PathBuf,
    socket: Mutex<Option<UnixDatagram>>,
}

impl Socket {
    fn at(path: PathBuf) -> Self {
        Self { path, socket: Mutex::new(None) }
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connected) = socket.as_ref() {
            match connected.send(message) {
                Ok(_) => return Ok(()),
                // It does not take any more at the moment: nothing is gained by asking anew.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                Err(_) => {}
            }
        }
        socket.insert(connect(&self.path)?).send(message).map(drop)
    }
}

/// One that hangs must not stop the service: what it does not take at once it does not get.
fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// As syslog(3) sends it.
fn syslog(facility: Facility, name: &str, line: &str, record: &Record<'_>) -> Vec<u8> {
    let priority = facility.with(record.level);
    let time = record.now.strftime("%b %e %H:%M:%S");
    format!("<{priority}>{time} {name}: {}", cut(line)).into_bytes()
}

/// The journal's own protocol: `NAME=value` lines; a value of several lines is preceded by its length.
fn journal(facility: Facility, name: &str, line: &str, record: &Record<'_>) -> Vec<u8> {
    let mut message = Vec::new();
    let mut field = |name: &str, value: &str| {
        message.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            message.push(b'\n');
            message.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            message.push(b'=');
        }
        message.extend_from_slice(value.as_bytes());
        message.push(b'\n');
    };
    field("MESSAGE", cut(line));
    field("PRIORITY", &severity(record.level).to_string());
    field("SYSLOG_FACILITY", &facility.code().to_string());
    field("SYSLOG_IDENTIFIER", name);
    field("LOGGER_NAME", &record.logger);
    field("LOGGER_LEVEL", record.level_name());
    field("CODE_FILE", record.file.unwrap_or_default());
    field("CODE_LINE", &record.line.unwrap_or_default().to_string());
    for (name, key) in [("REQUEST_ID", "request_id"), ("USER_ID", "user"), ("PROJECT_ID", "project")] {
        if let Some(value) = record.around.get(key) {
            field(name, value);
        }
    }
    message
}

/// Without its end of line, and no longer than a datagram may be.
fn cut(line: &str) -> &str {
    let line = line.trim_end_matches('\n');
    let mut end = line.len().min(LONGEST_MESSAGE);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::line::tests::record;
    use super::*;

    fn write(output: &Output, line: &str) {
        output.write(line, &record(tracing::Level::WARN, "message"));
    }

    fn in_temp(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("scoria-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_rotated_file_is_opened_afresh() {
        let path = in_temp("log");
        let moved = path.with_extension("1");
        let output = Output::open(Destination::File(path.clone())).unwrap();
        write(&output, "one\n");
        std::fs::rename(&path, &moved).unwrap();
        write(&output, "two\n");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        std::fs::remove_file(path).unwrap();
        std::fs::remove_file(moved).unwrap();
    }

    #[test]
    fn a_full_disk_does_not_stop_the_service() {
        let output = Output::open(Destination::File("/dev/full".into())).unwrap();
        write(&output, "this line goes to standard error\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = Output::open(Destination::File("/nonexistent/scoria.log".into())).unwrap_err();
        assert!(error.to_string().starts_with("log file /nonexistent/scoria.log: "), "{error}");
    }

    /// Somebody who listens on a socket of the test's own.
    fn listener(name: &str) -> (PathBuf, UnixDatagram) {
        let path = in_temp(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (path, listener)
    }

    fn heard(listener: &UnixDatagram) -> Vec<u8> {
        let mut message = vec![0; 2 * LONGEST_MESSAGE];
        let length = listener.recv(&mut message).unwrap();
        message.truncate(length);
        message
    }

    #[test]
    fn syslog_hears_facility_severity_name_and_line() {
        let facility = "LOG_LOCAL3".parse().unwrap();
        let socket = in_temp("syslog");
        let output = Output::open(Destination::Syslog { socket, facility, name: "cinder-volume".to_owned() }).unwrap();
        write(&output, "nobody listens yet\n");
        let (path, syslog) = listener("syslog");
        write(&output, "the whole line\n");
        // 19 * 8 + 4.
        assert_eq!(String::from_utf8(heard(&syslog)).unwrap(), "<156>Nov  2 04:59:27 cinder-volume: the whole line");
        write(&output, &"ü".repeat(LONGEST_MESSAGE));
        assert!(heard(&syslog).len() > LONGEST_MESSAGE - 1);

        // It is started anew.
        drop(syslog);
        write(&output, "nobody listens\n");
        std::fs::remove_file(&path).unwrap();
        let (path, syslog) = listener("syslog");
        write(&output, "again\n");
        assert!(heard(&syslog).ends_with(b"again"));

        // It hangs: nobody waits for it.
        for _ in 0..10_000 {
            write(&output, "");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_journal_hears_fields() {
        let (path, journal) = listener("journal");
        let destination =
            Destination::Journal { socket: path.clone(), facility: Facility::USER, name: "cinder-volume".to_owned() };
        let output = Output::open(destination).unwrap();
        write(&output, "one\ntwo\n");
        let message = heard(&journal);
        let two_lines = [b"MESSAGE\n".as_slice(), &7_u64.to_le_bytes(), b"one\ntwo\n"].concat();
        assert!(message.starts_with(&two_lines), "{message:?}");
        let rest = String::from_utf8(message[two_lines.len()..].to_vec()).unwrap();
        for field in [
            "PRIORITY=4",
            "SYSLOG_FACILITY=1",
            "SYSLOG_IDENTIFIER=cinder-volume",
            "LOGGER_NAME=scoria.test",
            "LOGGER_LEVEL=WARNING",
            "REQUEST_ID=req-1",
        ] {
            assert!(rest.lines().any(|line| line == field), "{field}: {rest}");
        }
        std::fs::remove_file(path).unwrap();
    }
}
