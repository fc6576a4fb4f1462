//! The two HTTP clients: a polite one that speaks JSON, and one that sends any bytes.

use std::{net::SocketAddr, time::Duration};

use reqwest::{Method, Url};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{Answer, PATIENCE};

/// A client of one server, perhaps with an access token.
///
/// Cloning shares the connections.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    base: Url,
    token: Option<String>,
}

impl Http {
    /// A client without a token.
    pub fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            // One of a flood may wait long on a busy machine; what must be prompt is measured.
            .timeout(6 * PATIENCE)
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .expect("a client without TLS needs nothing that could be missing");
        let base = Url::parse(&format!("http://{address}")).expect("an address makes a URL");
        Self {
            client,
            base,
            token: None,
        }
    }

    /// The same client with this access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: Some(token.to_owned()),
            ..self.clone()
        }
    }

    /// The same client without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    /// Starts a request with the token, for whatever the shorter ways can not say.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{}", self.base.as_str().trim_end_matches('/'), path);
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Sends a request, or tells why no answer came.
    pub async fn try_send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Answer, reqwest::Error> {
        let request = request.build()?;
        let asked = format!("{} {}", request.method(), request.url().path());
        let response = self.client.execute(request).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await?;
        Ok(Answer::new(&asked, status, headers, text))
    }

    /// Sends a request and insists on an answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        match self.try_send(request).await {
            Ok(answer) => answer,
            Err(error) => panic!("no answer: {error:?}"),
        }
    }

    /// Sends a request whose answer need not have the envelope, such as a preflight.
    pub async fn bare(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        request
            .send()
            .await
            .unwrap_or_else(|error| panic!("no answer: {error:?}"))
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// `POST` with a body that is called JSON, whatever it is.
    pub async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, path);
        self.send(
            request
                .header("content-type", "application/json")
                .body(body),
        )
        .await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(body)).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::PATCH, path).json(body))
            .await
    }

    /// `POST` with a JSON body and an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        self.send(request.header("idempotency-key", key)).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }
}

/// What came back for raw bytes.
#[derive(Clone, Debug, Default)]
pub struct RawAnswer {
    /// The status code of the first answer, 0 if there was none.
    pub status: u16,
    /// Everything that was received.
    pub text: String,
}

impl RawAnswer {
    /// The code of the error envelope, if the answer has one.
    pub fn code(&self) -> Option<String> {
        let (_, body) = self.text.split_once("\r\n\r\n")?;
        let body: Value = serde_json::from_str(body).ok()?;
        body["error"]["code"].as_str().map(str::to_owned)
    }
}

/// Sends raw bytes on a connection of their own, then chunk after chunk of `rest`, and reads one
/// answer. A connection that is cut ends the answer, since that is an answer too.
///
/// # Panics
///
/// When the server neither answers nor cuts within [`PATIENCE`].
pub async fn raw(
    address: SocketAddr,
    first: &[u8],
    rest: impl IntoIterator<Item = Vec<u8>>,
) -> RawAnswer {
    let stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    let (mut from, mut to) = stream.into_split();
    let write = async {
        let mut sent = to.write_all(first).await;
        for chunk in rest {
            if sent.is_err() {
                break;
            }
            sent = to.write_all(&chunk).await;
        }
        // The connection stays open: a client that went away is another story.
        std::future::pending::<()>().await;
    };
    let read = async {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        while !is_complete(&received) {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
            }
        }
        received
    };
    let both = async {
        tokio::select! {
            received = read => received,
            () = write => unreachable!("writing never ends"),
        }
    };
    let received = crate::soon("an answer to raw bytes", both).await;
    let text = String::from_utf8_lossy(&received).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    RawAnswer { status, text }
}

/// Whether a response with a `Content-Length` has arrived whole.
fn is_complete(received: &[u8]) -> bool {
    let text = String::from_utf8_lossy(received);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    length
        .and_then(|it| it.trim().parse().ok())
        .is_some_and(|length: usize| body.len() >= length)
}

/// Percent-encodes text for a query: everything but letters and digits.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
