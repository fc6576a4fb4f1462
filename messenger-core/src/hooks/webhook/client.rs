//! The least of an HTTP client: it posts to one address, and knows no redirects.

use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;

use super::invalid;
use crate::clock;
use crate::error::{Error, Result as EngineResult};

/// How long it may take to connect.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How much of the body of an answer is read, in bytes, and for how long, so that the connection can
/// be used again.
const BODY_BYTES_MAX: usize = 4 * 1024;
const BODY_WAIT: Duration = Duration::from_secs(1);
/// Connections that are kept for later.
const IDLE_MAX: usize = 8;
/// For how long one is kept that nobody uses: what stands in between forgets it silently.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// For how long one is used: the name may mean another machine by now.
const AGE_MAX: Duration = Duration::from_secs(10 * 60);

type Result<T> = std::result::Result<T, Box<dyn StdError + Send + Sync>>;

/// A request.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) id: String,
    pub(super) timestamp: i64,
    pub(super) signature: String,
    pub(super) body: String,
}

/// What an answer says.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
}

/// A way to one address, with connections that are kept.
#[derive(Clone)]
pub(super) struct Client {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// Dropping it ends it.
struct Connection {
    made_at: Instant,
    used_at: Instant,
    sender: SendRequest<Full<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

impl Client {
    pub(super) fn new(url: &str) -> EngineResult<Self> {
        const RULE: &str = "must be an address like https://push.example.com/hooks; http:// only to localhost and private addresses";
        let broken = || invalid("webhook_url", RULE);
        let uri: Uri = url.parse().map_err(|_| broken())?;
        let authority = uri.authority().ok_or_else(broken)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(broken());
        }
        let (default, tls) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| broken())?;
                (443, Some((connector()?, name)))
            }
            Some("http") if is_private(&host) => (80, None),
            _ => return Err(broken()),
        };
        Ok(Self {
            port: uri.port_u16().unwrap_or(default),
            host,
            tls,
            uri,
            idle: Arc::default(),
        })
    }

    pub(super) async fn post(&self, post: Post) -> Result<Answered> {
        // One that was kept may have been closed at the other end, which only a request notices.
        // It carries its id, so to send it again does no harm.
        if let Some(mut kept) = self.kept()
            && kept.sender.ready().await.is_ok()
            && let Ok(answer) = kept.sender.send_request(self.request(&post)?).await
        {
            return Ok(self.answered(kept, answer).await);
        }
        let mut fresh = timeout(CONNECT_WAIT, self.connect()).await??;
        let answer = fresh.sender.send_request(self.request(&post)?).await?;
        Ok(self.answered(fresh, answer).await)
    }

    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(Connection::is_good);
        idle.pop()
    }

    fn request(&self, post: &Post) -> Result<Request<Full<Bytes>>> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |it| it.as_str());
        let request = Request::post(path)
            .header(HOST, host)
            .header(USER_AGENT, concat!("messenger/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &post.id)
            .header("webhook-timestamp", post.timestamp)
            .header("webhook-signature", &post.signature);
        Ok(request.body(Full::new(Bytes::from(post.body.clone())))?)
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some((tls, name)) => shake(tls.connect(name.clone(), stream).await?).await,
            None => shake(stream).await,
        }
    }

    /// Reads what is left of an answer, and keeps the connection if that was little.
    async fn answered(&self, mut connection: Connection, answer: Response<Incoming>) -> Answered {
        let answered = Answered {
            status: answer.status().as_u16(),
            retry_after: retry_after(&answer),
        };
        let mut body = answer.into_body();
        let read = async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                bytes += frame.ok()?.data_ref().map_or(0, Bytes::len);
                if bytes > BODY_BYTES_MAX {
                    return None;
                }
            }
            Some(())
        };
        if let Ok(Some(())) = timeout(BODY_WAIT, read).await {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            connection.used_at = Instant::now();
            if idle.len() < IDLE_MAX && connection.is_good() {
                idle.push(connection);
            }
        }
        answered
    }
}

impl Connection {
    fn is_good(&self) -> bool {
        let is_old = self.used_at.elapsed() >= IDLE_WAIT || self.made_at.elapsed() >= AGE_MAX;
        !is_old && !self.sender.is_closed()
    }
}

async fn shake(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Connection> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    let task = tokio::spawn(async move {
        // Whoever waits for an answer is told what went wrong.
        let _ = connection.await;
    });
    let now = Instant::now();
    Ok(Connection {
        made_at: now,
        used_at: now,
        sender,
        _task: AbortOnDropHandle::new(task),
    })
}

fn connector() -> EngineResult<TlsConnector> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Setup("TLS can not be set up".to_owned(), Some(Arc::new(error))))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whether what is said to a host stays where nobody else listens: on this machine, or in a private
/// network.
fn is_private(host: &str) -> bool {
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback() || address.is_private() || address.is_link_local()
        }
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => host == "localhost" || host.ends_with(".localhost") || !host.contains('.'),
    }
}

/// How long an answer asks to wait, in seconds or up to a date.
fn retry_after(answer: &Response<Incoming>) -> Option<Duration> {
    let asked = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    wait_asked(asked, clock::now().as_seconds())
}

fn wait_asked(asked: &str, now: i64) -> Option<Duration> {
    let seconds = asked.parse::<u64>().ok().or_else(|| {
        let date = OffsetDateTime::parse(asked, &Rfc2822).ok()?;
        Some(u64::try_from(date.unix_timestamp() - now).unwrap_or(0))
    });
    seconds.map(Duration::from_secs)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_private_hosts_are_told_in_the_clear() {
        for good in [
            "https://push.example.com/hooks?from=chat",
            "https://203.0.113.7:8443",
            "http://localhost:8080/hooks",
            "http://127.0.0.1/",
            "http://[::1]:8080/",
            "http://192.168.1.20:9000/x",
            "http://push:8080/hooks",
        ] {
            assert!(Client::new(good).is_ok(), "{good}");
        }
        for wrong in [
            "",
            "push.example.com",
            "/hooks",
            "ftp://localhost/",
            "http://push.example.com/hooks",
            "http://203.0.113.7/",
            "http://[2001:db8::1]/",
            "https://user:password@push.example.com/",
            "https://",
        ] {
            assert!(Client::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_taken_apart() {
        let client = Client::new("http://[::1]:8080/hooks?x=1").expect("an address");
        assert_eq!((client.host.as_str(), client.port), ("::1", 8080));
        let client = Client::new("https://push.example.com").expect("an address");
        assert_eq!(
            (client.host.as_str(), client.port),
            ("push.example.com", 443)
        );
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_a_while() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let server = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        stream.write_all(answer).await.expect("written");
                    }
                });
            }
        });
        let client = Client::new(&url).expect("an address");
        let post = Post {
            id: "1".to_owned(),
            timestamp: 1,
            signature: "v1,".to_owned(),
            body: "{}".to_owned(),
        };

        for (later, connections) in [
            (Duration::ZERO, 1),
            (IDLE_WAIT / 2, 1),
            (IDLE_WAIT, 2),
            (Duration::ZERO, 2),
        ] {
            tokio::time::pause();
            tokio::time::advance(later).await;
            tokio::time::resume();
            let answered = client.post(post.clone()).await.expect("an answer");
            assert_eq!(answered.status, 204);
            assert_eq!(made.load(Ordering::Relaxed), connections, "{later:?} later");
        }
        server.abort();
    }

    #[test]
    fn an_answer_asks_to_wait_for_seconds_or_up_to_a_date() {
        let now = 1_445_412_480; // 2015-10-21T07:28:00Z

        assert_eq!(wait_asked("120", now), Some(Duration::from_secs(120)));
        let date = "Wed, 21 Oct 2015 07:29:30 GMT";
        assert_eq!(wait_asked(date, now), Some(Duration::from_secs(90)));
        assert_eq!(wait_asked(date, now + 1_000), Some(Duration::ZERO));
        assert_eq!(wait_asked("soon", now), None);
    }
}
