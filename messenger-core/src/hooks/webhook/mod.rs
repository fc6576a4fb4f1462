//! Changes over HTTP, signed as [Standard Webhooks](https://www.standardwebhooks.com) has it.
//!
//! A change is a `POST` of JSON. What becomes of it says the status: a 2xx has taken it, 410 wants to
//! hear no more, anything else is tried again.

mod body;
mod client;
mod secret;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::client::{Answered, Client, Post};
pub use self::secret::WebhookSecret;
use super::change::{Change, ChangeResult, ChangeSettings, NotTaken};
use crate::clock;
use crate::error::{Error, Result};

/// How long a change is tried that an endpoint does not take.
const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// How long an endpoint may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// An endpoint that is told of changes over HTTP. A clone is the same endpoint.
///
/// Each change is a `POST` with the headers `webhook-id` (the change's id, the same at every try),
/// `webhook-timestamp` and `webhook-signature`, and a body
/// `{"type": "message.created", "timestamp": …, "data": {…}}`, where what is in `data` has the form
/// that it has in the server's API.
///
/// Certificates are verified by the roots that browsers trust. Redirects are not followed. Of an
/// answer a few KiB are read and thrown away.
#[derive(Clone)]
pub struct Webhook {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    secrets: Vec<WebhookSecret>,
}

impl Webhook {
    /// Makes an endpoint of an address and the secret that it verifies signatures with.
    ///
    /// The address begins with `https://`; `http://` goes only to `localhost`, to addresses of this
    /// machine or of private networks, and to names without a dot, which are private as well.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: it is no such address.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn example() -> messenger_core::Result<()> {
    /// use messenger_core::MessengerEngine;
    /// use messenger_core::hooks::{Topic, Webhook, WebhookSecret};
    ///
    /// let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
    /// let push = Webhook::new("https://push.example.com/hooks", secret)?;
    /// let mut settings = Webhook::settings();
    /// settings.topics = vec![Topic::MessageCreated];
    /// let builder = MessengerEngine::builder("sqlite://chat.db");
    /// let builder = builder.webhook("push", settings, push);
    /// # Ok(()) }
    /// ```
    pub fn new(url: &str, secret: WebhookSecret) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                client: Client::new(url)?,
                secrets: vec![secret],
            }),
        })
    }

    /// Signs with one more secret, so that an endpoint can go over from one to another: it takes what
    /// is signed with either.
    #[must_use]
    pub fn also_signed_with(self, secret: WebhookSecret) -> Self {
        let mut secrets = self.inner.secrets.clone();
        secrets.push(secret);
        Self {
            inner: Arc::new(Inner {
                client: self.inner.client.clone(),
                secrets,
            }),
        }
    }

    /// Returns the settings that suit an endpoint: 15 s for an answer, tries after 5 s and up to
    /// every 15 min, given up after 3 days.
    pub fn settings() -> ChangeSettings {
        ChangeSettings {
            wait_max: ANSWER_WAIT,
            retry_min: Duration::from_secs(5),
            give_up: Some(GIVE_UP),
            ..ChangeSettings::default()
        }
    }

    /// Tells the endpoint one change.
    ///
    /// # Errors
    ///
    /// [`NotTaken`]: it did not answer with a 2xx. It asks to wait where the endpoint does
    /// (`Retry-After` of a 429 or 503), and to stop after a 410.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the endpoint may have taken it.
    pub async fn take(&self, change: Change) -> ChangeResult {
        let body = body::of(&change)?;
        let id = change.id.to_string();
        let timestamp = clock::now().as_seconds();
        let signatures = self.inner.secrets.iter();
        let signatures = signatures.map(|secret| secret.sign(&id, timestamp, &body));
        let post = Post {
            signature: signatures.collect::<Vec<_>>().join(" "),
            id,
            timestamp,
            body,
        };
        let Answered {
            status,
            retry_after,
        } = self.inner.client.post(post).await.map_err(NotTaken::new)?;
        match (status, retry_after) {
            (200..=299, _) => Ok(()),
            (410, _) => Err(NotTaken::new("the endpoint is gone (410)").stop()),
            (429 | 503, Some(wait)) => Err(refused(status).after(wait)),
            _ => Err(refused(status)),
        }
    }
}

fn refused(status: u16) -> NotTaken {
    NotTaken::new(format!("the endpoint answered {status}"))
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").finish_non_exhaustive()
    }
}

/// What is wrong with an address or a secret.
fn invalid(field: &'static str, rule: &str) -> Error {
    crate::error::Invalid::new(field, rule).into()
}
