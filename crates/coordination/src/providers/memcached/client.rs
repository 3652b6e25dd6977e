//! One connection to memcached: requests of everybody go over it at once, answers come back in order.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use scoria_runtime::CancellationToken;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout};

use super::wire::{Answer, Command, Expected, line};
use crate::Error;
use crate::link::Connection;

/// TCP or TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How long a process that goes on after it was stopped may need until all of its threads have run, memcached's clock too.
const WAKE_UP: Duration = Duration::from_millis(250);

/// How long it takes at most until what has arrived is read.
const A_MOMENT: Duration = Duration::from_millis(20);

/// How many requests may wait to be sent; more wait to get in line.
const QUEUE: usize = 1024;

/// The users' end. [`Client::over`] gives it together with the future that does the work.
#[derive(Debug, Clone)]
pub(super) struct Client {
    requests: mpsc::Sender<Request>,
    /// How long an answer may take. A server that takes longer is given up together with the connection.
    patience: Duration,
    /// How often it is asked whether it is still there.
    pulse: Duration,
    life: Arc<Life>,
}

#[derive(Debug)]
struct Life {
    ran: Mutex<Ran>,
    over: CancellationToken,
    reason: OnceLock<String>,
}

/// Since when at the latest the server's clock has run.
///
/// A server that was stopped goes on with the clock of then, and may answer before it has moved it on. So an answer shows something
/// only once the server had time to wake up after it.
#[derive(Debug)]
struct Ran {
    sure: Instant,
    /// When the next answer came that is to show something, and when it was asked for.
    next: Option<(Instant, Instant)>,
}

#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    waiting: Waiting,
}

#[derive(Debug)]
struct Waiting {
    expected: Expected,
    sent: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Client {
    /// A client on a connection that was just made, and what has to run for it.
    pub(super) fn over(
        stream: Box<dyn Stream>,
        patience: Duration,
        pulse: Duration,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let ran = Mutex::new(Ran { sure: Instant::now(), next: None });
        let life = Arc::new(Life { ran, over: CancellationToken::new(), reason: OnceLock::new() });
        Self::alive(stream, patience, pulse, life)
    }

    /// A client on another connection to the same server. What one of them learns of the server counts for both, and they end
    /// together.
    pub(super) fn beside(&self, stream: Box<dyn Stream>) -> (Self, impl Future<Output = ()> + Send + 'static) {
        Self::alive(stream, self.patience, self.pulse, self.life.clone())
    }

    fn alive(
        stream: Box<dyn Stream>,
        patience: Duration,
        pulse: Duration,
        life: Arc<Life>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let work = work(stream, queue, life.clone());
        (Self { requests, patience, pulse, life }, work)
    }

    /// Sends a command and waits for its answer. The time is the one from which on the server may count what it was told
    /// to count, see [`super::store`].
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the connection ended or the answer did not come in time, nobody knows whether it was done; or the
    /// server refused, it was not done.
    pub(super) async fn ask(&self, command: Command<'_>) -> Result<(Answer, Instant), Error> {
        let counts_from = self.life.ran().sure(Instant::now());
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { expected: command.expected(), sent: Instant::now(), answer };
        let request = Request { bytes: command.encode(), waiting };
        let asked = async {
            self.requests.send(request).await.ok()?;
            answered.await.ok()
        };
        match self.wait_for(asked).await {
            Ok(Some(answer)) => match answer.refused() {
                Some(why) => Err(Error::Unavailable(format!("memcached: {why}"))),
                None => Ok((answer, counts_from)),
            },
            Ok(None) => Err(Error::Unavailable(self.life.reason())),
            Err(_) => {
                self.life.end(format!("memcached did not answer within {:.1} s", self.patience.as_secs_f64()));
                Err(Error::Unavailable(self.life.reason()))
            }
        }
    }

    /// An error when it has not come in time. A busy executor is no silent server: as long as it was late, the answer, or what reads
    /// it, may be late.
    async fn wait_for<T>(&self, answer: impl Future<Output = T>) -> Result<T, Elapsed> {
        let (began, mut answer) = (Instant::now(), pin!(answer));
        match timeout(self.patience, &mut answer).await {
            Ok(answer) => Ok(answer),
            Err(_) => timeout(began.elapsed().saturating_sub(self.patience).max(A_MOMENT), answer).await,
        }
    }

    /// Waits until what the server has answered shows that its clock runs. Before that no time that [`Client::ask`] gives is good.
    pub(super) async fn awake(&self) {
        sleep(WAKE_UP).await;
    }

    /// Why nothing can be asked any more.
    pub(super) fn why_over(&self) -> Option<String> {
        self.life.over.is_cancelled().then(|| self.life.reason())
    }

    /// Ends the connection.
    pub(super) fn end(&self, reason: &str) {
        self.life.end(reason.to_owned());
    }
}

impl Connection for Client {
    async fn ended(&self) -> String {
        loop {
            tokio::select! {
                biased;
                () = self.life.over.cancelled() => return self.life.reason(),
                () = sleep(self.pulse) => {}
            }
            // What is wrong, if anything, ends the connection.
            let _ = self.ask(Command::Version).await;
        }
    }
}

impl Life {
    fn end(&self, reason: String) {
        let _ = self.reason.set(reason);
        self.over.cancel();
    }

    fn reason(&self) -> String {
        self.reason.get().cloned().unwrap_or_else(|| "the connection to memcached ended".to_owned())
    }

    fn ran(&self) -> MutexGuard<'_, Ran> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ran {
    fn sure(&mut self, now: Instant) -> Instant {
        if let Some((answered, sent)) = self.next
            && now >= answered + WAKE_UP
        {
            (self.sure, self.next) = (sent, None);
        }
        self.sure
    }

    fn answered(&mut self, now: Instant, sent: Instant) {
        self.sure(now);
        self.next.get_or_insert((now, sent));
    }
}

/// Sends and reads until one of the two ends, or somebody ends it.
async fn work(stream: Box<dyn Stream>, queue: mpsc::Receiver<Request>, life: Arc<Life>) {
    let (reading, writing) = split(stream);
    let (sent, waiting) = mpsc::unbounded_channel();
    let reason = tokio::select! {
        biased;
        () = life.over.cancelled() => return,
        reason = read(BufReader::new(reading), waiting, &life) => reason,
        reason = write(writing, queue, sent) => reason,
    };
    life.end(reason);
}

/// Sends what is asked; what was asked meanwhile goes out in one write.
async fn write(
    mut to: WriteHalf<Box<dyn Stream>>,
    mut queue: mpsc::Receiver<Request>,
    sent: mpsc::UnboundedSender<Waiting>,
) -> String {
    while let Some(request) = queue.recv().await {
        let mut bytes = request.bytes;
        let _ = sent.send(request.waiting);
        while let Ok(more) = queue.try_recv() {
            bytes.extend(more.bytes);
            let _ = sent.send(more.waiting);
        }
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return format!("memcached: {error}");
        }
    }
    "closed".to_owned()
}

/// Reads answers and hands each to whoever waits for it.
async fn read(
    mut from: BufReader<ReadHalf<Box<dyn Stream>>>,
    mut waiting: mpsc::UnboundedReceiver<Waiting>,
    life: &Life,
) -> String {
    loop {
        let next = tokio::select! {
            biased;
            Some(next) = waiting.recv() => next,
            unasked = from.fill_buf() => match unasked {
                // It says something before it hangs up, for example that it has too many connections.
                Ok(bytes) if !bytes.is_empty() => {
                    let said = line(&mut from).await.unwrap_or_default();
                    return format!("memcached said unasked: '{said}'");
                }
                Ok(_) => return "memcached closed the connection".to_owned(),
                Err(error) => return format!("memcached: {error}"),
            },
        };
        match Answer::read(&mut from, next.expected).await {
            Ok(answer) => {
                life.ran().answered(Instant::now(), next.sent);
                // Whoever asked may have gone.
                let _ = next.answer.send(answer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return "memcached closed the connection".to_owned();
            }
            Err(error) => return format!("memcached: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use scoria_runtime::Tasks;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A client with five seconds of patience, and the server's end of its connection.
    fn connected() -> (Client, DuplexStream) {
        let (ours, theirs) = duplex(64 * 1024);
        let (client, work) = Client::over(Box::new(ours), SECOND * 5, SECOND);
        drop(Tasks::new().spawn("connection", work));
        (client, theirs)
    }

    async fn heard(server: &mut DuplexStream) -> String {
        let mut bytes = vec![0; 64 * 1024];
        let length = server.read(&mut bytes).await.unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_at_once_goes_out_in_one_write_and_each_gets_its_own_answer() {
        let (client, mut server) = connected();
        let keys: Vec<_> = (0..100).map(|n| format!("k{n}")).collect();
        let asked = join_all(keys.iter().map(|key| client.ask(Command::Look { key })));
        let serve = async {
            let mut text = String::new();
            while text.lines().count() < 100 {
                text.push_str(&heard(&mut server).await);
            }
            for key in text.lines().map(|line| line.strip_prefix("gets ").unwrap()) {
                let answer = format!("VALUE {key} 1 {} 7\r\n{key}\r\nEND\r\n", key.len());
                server.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let (answers, ()) = tokio::join!(asked, serve);
        for (key, answer) in keys.iter().zip(answers) {
            assert_eq!(answer.unwrap().0.record.unwrap().value, key.as_bytes());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_does_not_mix_up_the_answers() {
        let (client, mut server) = connected();
        assert!(timeout(SECOND, client.ask(Command::Version)).await.is_err());
        let serve = async {
            let mut text = String::new();
            while !text.ends_with("delete k\r\n") {
                text.push_str(&heard(&mut server).await);
            }
            server.write_all(b"VERSION 1\r\nDELETED\r\n").await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.ask(Command::Delete { key: "k" }), serve);
        assert_eq!(answer.unwrap().0.line, "DELETED");
    }

    /// A server that was stopped stamps what it is asked next with the time at which it was stopped.
    #[tokio::test(start_paused = true)]
    async fn time_counts_from_when_the_server_ran_for_sure() {
        async fn answered(client: &Client, server: &mut DuplexStream, after: Duration) -> Instant {
            let serve = async {
                sleep(after).await;
                heard(server).await;
                server.write_all(b"VERSION 1\r\n").await.unwrap();
            };
            tokio::join!(client.ask(Command::Version), serve).0.unwrap().1
        }
        let (client, mut server) = connected();
        answered(&client, &mut server, Duration::ZERO).await;
        let began = Instant::now();
        client.awake().await;
        assert_eq!(answered(&client, &mut server, Duration::ZERO).await, began);

        // It is stopped, goes on four seconds later, and answers before its clock has moved: that shows nothing yet.
        let second = Instant::now();
        sleep(SECOND).await;
        assert_eq!(
            answered(&client, &mut server, SECOND * 4).await,
            second,
            "what was sent last before it was stopped"
        );
        let third = Instant::now() - SECOND * 4;
        assert_eq!(answered(&client, &mut server, Duration::ZERO).await, second);
        client.awake().await;
        assert_eq!(answered(&client, &mut server, Duration::ZERO).await, third);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_is_given_up_by_itself() {
        let (client, _server) = connected();
        let began = Instant::now();
        let why = client.ended().await;
        assert!(why.contains("did not answer within 5.0 s"), "{why}");
        assert_eq!(began.elapsed(), SECOND * 6 + A_MOMENT, "a second of silence, then a question");
        assert!(matches!(client.ask(Command::Version).await, Err(Error::Unavailable(_))));
        assert_eq!(client.why_over(), Some(why));
    }

    #[tokio::test(start_paused = true)]
    async fn two_connections_to_one_server_end_together_and_share_what_is_known_of_it() {
        let (first, mut server) = connected();
        let (ours, mut theirs) = duplex(64 * 1024);
        let (second, work) = first.beside(Box::new(ours));
        drop(Tasks::new().spawn("connection", work));
        let serve = async {
            heard(&mut theirs).await;
            theirs.write_all(b"VERSION 1\r\n").await.unwrap();
        };
        let began = Instant::now();
        tokio::join!(second.ask(Command::Version), serve).0.unwrap();
        first.awake().await;
        let serve = async {
            heard(&mut server).await;
            server.write_all(b"VERSION 1\r\n").await.unwrap();
        };
        assert_eq!(tokio::join!(first.ask(Command::Version), serve).0.unwrap().1, began);

        drop(theirs);
        assert_eq!(first.ended().await, "memcached closed the connection");
    }

    #[tokio::test]
    async fn an_executor_that_is_busy_does_not_end_the_connection() {
        for busy in [51, 60, 100, 500] {
            let (ours, mut server) = duplex(64 * 1024);
            let (client, work) = Client::over(Box::new(ours), Duration::from_millis(50), SECOND);
            drop(Tasks::new().spawn("connection", work));
            let serve = async {
                heard(&mut server).await;
                server.write_all(b"VERSION 1\r\n").await.unwrap();
                std::thread::sleep(Duration::from_millis(busy));
            };
            let (answer, ()) = tokio::join!(client.ask(Command::Version), serve);
            assert_eq!(answer.unwrap().0.line, "VERSION 1", "busy for {busy} ms");
            assert_eq!(client.why_over(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_connection_is_told_with_what_the_server_said() {
        for (last_words, reason) in [
            (&b""[..], "memcached closed the connection"),
            (b"ERROR Too many open connections\r\n", "memcached said unasked: 'ERROR Too many open connections'"),
        ] {
            let (client, mut server) = connected();
            server.write_all(last_words).await.unwrap();
            drop(server);
            assert_eq!(client.ended().await, reason);
        }
        let (client, mut server) = connected();
        server.write_all(b"WHAT?\r\n").await.unwrap();
        let asked = client.ask(Command::Version).await;
        assert!(matches!(asked, Ok(_) | Err(Error::Unavailable(_))), "{asked:?}");
    }
}
