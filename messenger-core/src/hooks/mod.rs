//! What the host decides: what may be said, and who may belong together; and what it is told of.
//!
//! A hook is asked before a write is queued, and its verdict is a rule of the operation among the
//! others: strangers are told *not found* and repeats get their first answer, whatever a hook says.
//!
//! What has happened is told from the change log, a [`Change`] at a time, whatever becomes of the
//! host or the engine in between.

mod change;
mod follow;
mod lanes;
mod on_change;
mod operations;
mod queries;
mod tell;
#[cfg(feature = "webhooks")]
mod webhook;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

pub use self::change::{
    Change, ChangeKind, ChangeResult, ChangeSettings, ConversationBrief, NewMessageTold, NotTaken,
    Topic,
};
pub(crate) use self::follow::{With, start};
pub(crate) use self::on_change::{HookCounters, OnChange, check_names};
#[cfg(feature = "webhooks")]
pub use self::webhook::{Webhook, WebhookSecret};
use crate::conversations::Title;
use crate::error::{Cause, Error, Result};
use crate::ids::{AttachmentId, ConversationId, MessageId, UserId};
use crate::messages::{MessageBody, Metadata};

/// A message that somebody wants to send, or other content that they want to give one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BeforeSend {
    /// Who. Whether they belong to the conversation is not decided yet.
    pub sender: UserId,
    /// Where.
    pub conversation: ConversationId,
    /// The text; empty if it is nothing but attachments.
    pub body: MessageBody,
    /// What is attached to it. Whether the sender has uploaded it is not decided yet.
    pub attachments: Vec<AttachmentId>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// Members whom it names.
    pub mentions: Vec<UserId>,
    /// The host's own facts about it.
    pub metadata: Option<Metadata>,
    /// The message that gets this text, if it was sent before. Of an edit only the text is new, and
    /// only it is here.
    pub edits: Option<MessageId>,
}

/// People who are to belong together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BeforeJoin {
    /// Who wants it.
    pub actor: UserId,
    /// Who is to belong to it beside those who do. Of what is new, without the actor.
    pub users: Vec<UserId>,
    /// To what.
    pub to: Joins,
}

/// What people are to belong to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Joins {
    /// A direct conversation with the actor, which may exist already.
    Direct,
    /// A group that the actor creates.
    NewGroup {
        /// What it is called.
        title: Title,
    },
    /// A group that there is. Whether the actor may add people is not decided yet.
    Group(ConversationId),
}

/// What a hook has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// As far as the host is concerned, it may take place.
    Allow,
    /// It may not, for a reason that the actor is told: [`Error::RefusedByHost`].
    Refuse(String),
}

/// What becomes of a write if its hook fails, panics or does not answer in time, and of a change that
/// a hook does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is refused for now, as [`Error::Undecided`], and may be tried again: *fail closed*. A change
    /// is told again until it is taken.
    #[default]
    Refuse,
    /// It takes place: *fail open*. A change is left out after a few tries.
    Allow,
}

/// How a hook is asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HookSettings {
    /// How long its answer is waited for. Then it is dropped, and has failed. 1 s.
    pub wait_max: Duration,
    /// What happens if it fails.
    pub on_failure: OnFailure,
}

impl Default for HookSettings {
    fn default() -> Self {
        Self {
            wait_max: Duration::from_secs(1),
            on_failure: OnFailure::default(),
        }
    }
}

/// What a hook answers: a decision, or why it could not decide.
pub type HookResult = Result<Decision, Box<dyn StdError + Send + Sync>>;

/// The host's word about a write, for its operation: the first rule after those that tell nothing.
pub(crate) type Verdict = Result<()>;

/// The hooks of an engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) before_send: Option<Hook<BeforeSend>>,
    pub(crate) before_join: Option<Hook<BeforeJoin>>,
    pub(crate) on_change: Vec<OnChange>,
}

impl Hooks {
    /// Asks about a message.
    pub(crate) async fn may_send(&self, about: impl FnOnce() -> BeforeSend) -> Verdict {
        match &self.before_send {
            Some(hook) => hook.ask(about()).await,
            None => Ok(()),
        }
    }

    /// Asks about people.
    pub(crate) async fn may_join(&self, about: impl FnOnce() -> BeforeJoin) -> Verdict {
        match &self.before_join {
            Some(hook) => hook.ask(about()).await,
            None => Ok(()),
        }
    }
}

type Answer = Pin<Box<dyn Future<Output = HookResult> + Send>>;

/// One question to the host.
pub(crate) struct Hook<A> {
    decide: Arc<dyn Fn(A) -> Answer + Send + Sync>,
    settings: HookSettings,
}

impl<A: Send + 'static> Hook<A> {
    pub(crate) fn new<F, D>(settings: HookSettings, decide: F) -> Self
    where
        F: Fn(A) -> D + Send + Sync + 'static,
        D: Future<Output = HookResult> + Send + 'static,
    {
        Self {
            decide: Arc::new(move |about| Box::pin(decide(about))),
            settings,
        }
    }

    async fn ask(&self, about: A) -> Verdict {
        let decide = self.decide.clone();
        // In a task of its own, so that its panic ends nothing else; it ends with whoever waits.
        let asked = AbortOnDropHandle::new(tokio::spawn(async move { decide(about).await }));
        let failed: Cause = match tokio::time::timeout(self.settings.wait_max, asked).await {
            Ok(Ok(Ok(Decision::Allow))) => return Ok(()),
            Ok(Ok(Ok(Decision::Refuse(reason)))) => return Err(Error::RefusedByHost(reason)),
            Ok(Ok(Err(failed))) => failed.into(),
            Ok(Err(panicked)) => Arc::new(panicked),
            Err(late) => Arc::new(late),
        };
        tracing::warn!(
            error = &*failed as &dyn StdError,
            "a hook of the host failed"
        );
        match self.settings.on_failure {
            OnFailure::Allow => Ok(()),
            OnFailure::Refuse => Err(Error::Undecided(failed)),
        }
    }
}

impl<A> Clone for Hook<A> {
    fn clone(&self) -> Self {
        Self {
            decide: self.decide.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<A> fmt::Debug for Hook<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
