//! Accepts connections and speaks HTTP/1 on them, with a limit on everything a client can hold:
//! connections, the time of a request head, and idleness. poem's own server has no such timers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use poem::http::uri::Scheme;
use poem::http::{HeaderValue, header};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Endpoint, Response};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for the head of a request to arrive, from its first byte; for the first request of a
/// connection, from the start.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Time without a byte in either direction after which a connection is closed.
const IDLE_TIME_MAX: Duration = Duration::from_secs(75);
/// Bytes of a request head, and of what is buffered for a request beside its body.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 4_096;
/// How long to wait when the system can not give a connection, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on a host, which may be a name, and a port.
pub(crate) async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until `stop`, at most `connections_max` at a time, each a task of
/// `connections`. After `stop`, each ends as soon as its request is answered.
pub(crate) async fn accept(
    listener: TcpListener,
    endpoint: Arc<impl Endpoint<Output = Response> + 'static>,
    connections_max: usize,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let accept_all = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // A connection that was gone before it was accepted is no trouble of ours.
                    if error.kind() != io::ErrorKind::ConnectionAborted {
                        tracing::warn!(%error, "can not accept connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                    continue;
                }
            };
            let endpoint = Arc::clone(&endpoint);
            connections.spawn(converse(stream, peer, endpoint, place, stop.clone()));
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = stop.cancelled() => {}
    }
}

/// Serves one connection to its end. A connection that becomes a WebSocket gives its place back.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<impl Endpoint<Output = Response> + 'static>,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    // Answers are written whole; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let local = LocalAddr(stream.local_addr().map(Addr::from).unwrap_or_default());
    let remote = RemoteAddr(Addr::from(peer));
    let pulse = Arc::new(Pulse::new());
    let line = Line {
        stream: TokioIo::new(stream),
        pulse: Arc::clone(&pulse),
    };
    let service = service_fn(|request: hyper::Request<Incoming>| {
        pulse.request_begins();
        // Whoever sends both a length and chunks may mean to smuggle a request past a proxy. hyper
        // has dropped the length, as RFC 9112 section 6.1 says, which also says to close after.
        let close = request.headers().contains_key(header::TRANSFER_ENCODING);
        let request = (request, local.clone(), remote.clone(), Scheme::HTTP);
        let (endpoint, pulse) = (&endpoint, &pulse);
        async move {
            let mut response = endpoint.get_response(request.into()).await;
            let headers = response.headers_mut();
            if close {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let is_last = headers
                .get(header::CONNECTION)
                .is_some_and(|it| it == "close");
            pulse.request_ends(is_last);
            Ok::<_, Infallible>(hyper::Response::from(response))
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .serve_connection(line, service)
        .with_upgrades();

    let mut connection = pin!(connection);
    let mut stopping = false;
    loop {
        tokio::select! {
            // What ends a connection early is the client's affair.
            _ = connection.as_mut() => return,
            () = tokio::time::sleep_until(pulse.deadline()) => {
                if pulse.deadline() <= Instant::now() {
                    return;
                }
            }
            () = stop.cancelled(), if !stopping => {
                if pulse.is_untouched() {
                    return;
                }
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What a connection did last, for its deadline. Times are milliseconds since it was accepted.
#[derive(Debug)]
struct Pulse {
    accepted: Instant,
    /// A request is being answered.
    answering: AtomicBool,
    /// No request comes any more, only what is left of the body of one that was answered.
    is_last: AtomicBool,
    /// When the head that is under way began; 0 if none is.
    head_since: AtomicU64,
    /// When a byte was last moved; 0 if none ever was.
    moved: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self {
            accepted: Instant::now(),
            answering: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
            head_since: AtomicU64::new(1),
            moved: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        let elapsed = self.accepted.elapsed().as_millis();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }

    fn request_begins(&self) {
        self.answering.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    fn request_ends(&self, is_last: bool) {
        self.is_last.store(is_last, Ordering::Relaxed);
        self.answering.store(false, Ordering::Relaxed);
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    fn bytes_read(&self) {
        let now = self.now();
        self.moved.store(now, Ordering::Relaxed);
        let is_body =
            self.answering.load(Ordering::Relaxed) || self.is_last.load(Ordering::Relaxed);
        let starts_head = !is_body && self.head_since.load(Ordering::Relaxed) == 0;
        if starts_head {
            self.head_since.store(now, Ordering::Relaxed);
        }
    }

    fn bytes_written(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
    }

    fn is_untouched(&self) -> bool {
        self.moved.load(Ordering::Relaxed) == 0
    }

    /// Returns when the connection is to be cut if nothing changes until then.
    fn deadline(&self) -> Instant {
        let at = |millis: u64| self.accepted + Duration::from_millis(millis);
        let head_since = self.head_since.load(Ordering::Relaxed);
        if self.answering.load(Ordering::Relaxed) {
            // The body has a limit of its own, and the engine answers in bounded time.
            Instant::now() + IDLE_TIME_MAX
        } else if head_since != 0 {
            at(head_since) + HEAD_TIME_MAX
        } else {
            at(self.moved.load(Ordering::Relaxed)) + IDLE_TIME_MAX
        }
    }
}

/// A stream that tells its pulse about every byte.
#[derive(Debug)]
struct Line {
    stream: TokioIo<TcpStream>,
    pulse: Arc<Pulse>,
}

impl Read for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.pulse.bytes_read();
        }
        read
    }
}

impl Write for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.pulse.bytes_written();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if written.is_ready() {
            self.pulse.bytes_written();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
