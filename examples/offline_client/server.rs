//! How the client speaks to the server: requests that end in time, and the tokens that they need.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::replica::Write;
use crate::reply::Reply;

/// How long an answer may take.
const TIME_MAX: Duration = Duration::from_secs(30);

/// The server can not be reached, or not now. What is tried again waits this long at least.
#[derive(Debug, Default)]
pub(crate) struct Offline(pub(crate) Duration);

impl fmt::Display for Offline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server can not be reached")
    }
}

impl std::error::Error for Offline {}

/// The server, as one person's device sees it.
#[derive(Debug)]
pub(crate) struct Server {
    url: String,
    account: Value,
    http: Client,
    tokens: Value,
    /// Where the tokens are kept. An app keeps them where its system keeps secrets.
    file: PathBuf,
}

impl Server {
    /// Takes up the session whose tokens are in the file, if there is one.
    pub(crate) fn new(url: &str, name: &str, password: &str, file: PathBuf) -> Self {
        let tokens = std::fs::read(&file).unwrap_or_default();
        Self {
            url: url.to_owned(),
            account: json!({"username": name, "password": password}),
            http: Client::new(),
            tokens: serde_json::from_slice(&tokens).unwrap_or_default(),
            file,
        }
    }

    /// Registers the person, unless there is a session. Somebody who is registered already logs in.
    pub(crate) async fn register(&mut self) -> Result<(), Offline> {
        if self.tokens.is_object() {
            return Ok(());
        }
        let register = self.post("/v1/auth/register", &self.account);
        match exchange(register).await? {
            Reply::Done(login) => self.keep(&login),
            _ => self.log_in().await,
        }
    }

    /// Reads something.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Reply, Offline> {
        self.ask(&self.http.get(format!("{}{path}", self.url)))
            .await
    }

    /// Sends a write of the outbox.
    pub(crate) async fn send(&mut self, write: &Write) -> Result<Reply, Offline> {
        let Write {
            key,
            method,
            path,
            body,
            ..
        } = write;
        let method = method.parse().unwrap_or_default();
        let request = self.http.request(method, format!("{}{path}", self.url));
        self.ask(&request.header("Idempotency-Key", key).json(body))
            .await
    }

    /// Opens a socket. A token that is refused here is renewed with the next request.
    pub(crate) async fn socket(&self) -> Result<Socket, Offline> {
        let url = format!("{}/v1/ws", self.url.replacen("http", "ws", 1));
        let mut request = url.into_client_request().map_err(|_| Offline::default())?;
        let bearer = format!("Bearer {}", self.token()).parse();
        let headers = request.headers_mut();
        headers.insert("authorization", bearer.map_err(|_| Offline::default())?);
        match timeout(TIME_MAX, connect_async(request)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            _ => Err(Offline::default()),
        }
    }

    /// Asks as the person. A token that has expired is renewed, and what it was for is sent again.
    async fn ask(&mut self, request: &RequestBuilder) -> Result<Reply, Offline> {
        for _ in 0..2 {
            let request = request.try_clone().ok_or_else(Offline::default)?;
            match exchange(request.bearer_auth(self.token())).await? {
                Reply::Unauthenticated => self.renew().await?,
                reply => return Ok(reply),
            }
        }
        Err(Offline::default())
    }

    /// Gets other tokens. A refresh token is good for one time: the session ends if it is used
    /// again, so never by two requests at once. If the answer is lost, it ends too.
    async fn renew(&mut self) -> Result<(), Offline> {
        let refresh = json!({"refresh_token": self.tokens["refresh_token"]});
        match exchange(self.post("/v1/auth/refresh", &refresh)).await? {
            Reply::Done(login) => self.keep(&login),
            Reply::Failed | Reply::Later => Err(Offline::default()),
            // Elsewhere the person would be asked for the password.
            Reply::Refused(_) | Reply::Unauthenticated => self.log_in().await,
        }
    }

    async fn log_in(&mut self) -> Result<(), Offline> {
        match exchange(self.post("/v1/auth/login", &self.account)).await? {
            Reply::Done(login) => self.keep(&login),
            reply => {
                println!("can not log in: {reply:?}");
                Err(Offline::default())
            }
        }
    }

    fn keep(&mut self, login: &Value) -> Result<(), Offline> {
        self.tokens = login["tokens"].clone();
        std::fs::write(&self.file, self.tokens.to_string()).map_err(|_| Offline::default())
    }

    fn token(&self) -> &str {
        self.tokens["access_token"].as_str().unwrap_or_default()
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url)).json(body)
    }
}

/// An open socket.
pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What comes of a request; never [`Reply::Later`]. No answer is as good as one that says so.
async fn exchange(request: RequestBuilder) -> Result<Reply, Offline> {
    let answer = request.timeout(TIME_MAX).send().await;
    let answer = answer.map_err(|_| Offline::default())?;
    let wait = answer.headers().get(RETRY_AFTER);
    let wait = wait.and_then(|it| it.to_str().ok()?.parse().ok());
    let offline = Offline(Duration::from_secs(wait.unwrap_or_default()));
    let status = answer.status().as_u16();
    match answer.bytes().await.map(|body| Reply::of(status, &body)) {
        Ok(Reply::Later) | Err(_) => Err(offline),
        Ok(reply) => Ok(reply),
    }
}
