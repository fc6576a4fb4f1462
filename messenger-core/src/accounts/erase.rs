//! The end of an account.
//!
//! One transaction ends it: sessions, log-in, profile. What is left, which may be much, is done
//! behind it a little at a time, so that nobody who writes waits for it; a row of `erasures` says
//! what is still to do, for whichever engine opens the database next.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::auth::{self, Actor};
use crate::conversations::{self, LeaveForGood};
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::ids::{SessionId, UserId};
use crate::limits::Limits;
use crate::messages::{self, EraseOf};
use crate::store::Store;
use crate::store::entity::erasure::{self, Scope};
use crate::store::entity::{block, event, pref};
use crate::users::{User, Username, Users, queries};
use crate::write::{Batch, LogRefs, Needs, Operation, Writer};

/// Accounts, conversations and own rows that are looked up at once.
const ROWS_AT_ONCE: u64 = 100;
/// Messages that are looked through at once for those of one person.
const SEQS_AT_ONCE: i64 = 1_000;
/// How often an heir is looked for who is still there when the owner goes.
const HEIRS_MAX: usize = 8;

/// What the deletion of an account takes away beside the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Erase {
    /// Nothing: what the person wrote stays, by somebody without a name.
    #[default]
    Nothing,
    /// All that the person wrote, which becomes tombstones, and their reactions.
    Messages,
}

impl Erase {
    /// Returns the name on the wire: `nothing`, `messages`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Messages => "messages",
        }
    }

    /// Takes the name on the wire.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::Invalid): it is none of them.
    pub fn parse(text: &str) -> Result<Self, crate::Invalid> {
        match text {
            "nothing" => Ok(Self::Nothing),
            "messages" => Ok(Self::Messages),
            _ => Err(crate::Invalid::new("erase", "must be nothing or messages")),
        }
    }

    fn scope(self) -> Scope {
        match self {
            Self::Nothing => Scope::Account,
            Self::Messages => Scope::Messages,
        }
    }
}

impl Users<'_> {
    /// Deletes the actor's account, for good. A host deletes anybody's by
    /// [`trust`](crate::MessengerEngine::trust).
    ///
    /// At once: every session ends, nobody logs in any more, and the profile is empty but for
    /// [`User::deleted_at`]. The username is given to nobody else, since others know the person by
    /// it; only a digest of it is kept.
    ///
    /// Soon after, a little at a time and across restarts: the person leaves all groups, and what
    /// they kept and whom they had blocked is emptied. The last owner of a group leaves it to the
    /// admin who has been there for longest, else to such a member. Direct conversations stay
    /// readable for the others, who can say nothing there any more ([`Error::UserDeleted`]). With
    /// [`Erase::Messages`], also all that the person wrote is deleted with what is attached to it, in
    /// conversations that they have left as well, and their reactions go. What they uploaded and did not
    /// send goes when its time is over ([`Limits::attachment_grace`]).
    ///
    /// What stays: the id, and the digest of the username; under which keys something was kept and
    /// who was blocked once, without values, since the person's devices learn from these rows that
    /// it is no more; for [`Limits::ended_sessions_kept`] the sessions, which lose the names of their
    /// devices unless they had ended before; which conversations they were in and how far they had read;
    /// and of direct conversations, and of groups that they had left before, whether they were
    /// muted, pinned or archived.
    ///
    /// Deleting again changes nothing, or adds what was not erased the first time.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`]: the host trusts somebody whom the engine does not know.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the account is deleted and all of the above follows, or
    /// nothing has changed.
    pub async fn delete_me(&self, actor: &Actor, erase: Erase) -> Result<()> {
        let delete = DeleteAccount {
            user: actor.user_id(),
            erase,
        };
        let engine = self.engine().clone();
        let work = async move {
            let ended = engine.writer().run(delete).await?;
            engine.revocations().add(ended, crate::clock::now());
            engine.erasing().notify_one();
            Ok(())
        };
        // What follows does so even if nobody waits for it any more.
        self.engine().tasks().finish(work).await
    }
}

/// Ends an account.
struct DeleteAccount {
    user: UserId,
    erase: Erase,
}

impl Operation for DeleteAccount {
    type Output = Vec<SessionId>;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.user);
        needs.sessions_of(self.user);
        needs.erasure(self.user);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Vec<SessionId>> {
        let id = self.user.as_uuid();
        let row = batch.users.get(&id).ok_or(Error::UserNotFound)?;
        let is_first = row.deleted_at.is_none();
        if is_first || self.erase == Erase::Messages {
            let row = erasure::Model {
                user_id: id,
                scope: self.erase.scope(),
                created_at: batch.now().as_micros(),
            };
            match batch.erasures.change(&id) {
                Some(stored) => *stored = row,
                None => batch.erasures.insert(id, row),
            }
        }
        if !is_first {
            return Ok(Vec::new());
        }

        let position = batch.next_position();
        let now = batch.now();
        batch.reserve_username(self.user);
        batch.put_seen(self.user, None);
        if let Some(row) = batch.users.change(&id) {
            row.username.clear();
            row.display_name.clear();
            row.display_name_key.clear();
            row.password_hash = None;
            row.deleted_at = Some(now.as_micros());
            row.changed_pos = position.get();
        }
        let refs = LogRefs {
            user: Some(self.user),
            actor: Some(self.user),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::UserChanged, &refs);
        if let Some(user) = batch.users.get(&id).map(User::from) {
            let event = batch.event(position, EventKind::UserChanged { user });
            batch.announce(Change::Profile {
                user: self.user,
                event,
            });
        }
        let ended = auth::live_sessions(batch, self.user);
        batch.revoke_sessions(self.user, &ended);
        let sessions = batch.sessions.rows().filter(|row| row.user_id == id);
        let sessions: Vec<Uuid> = sessions.map(|row| row.id).collect();
        for session in sessions {
            if let Some(row) = batch.sessions.change(&session) {
                row.device = None;
            }
        }
        Ok(ended)
    }
}

/// Empties what somebody kept for themselves.
struct ForgetOwn {
    user: UserId,
    blocked: Vec<Uuid>,
    keys: Vec<String>,
}

impl Operation for ForgetOwn {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        for blocked in &self.blocked {
            needs.block(self.user, (*blocked).into());
        }
        for key in &self.keys {
            needs.pref(self.user, key);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        for blocked in &self.blocked {
            if batch.has_blocked(self.user, (*blocked).into()) {
                batch.put_block(self.user, (*blocked).into(), block::State::Gone);
            }
        }
        for key in &self.keys {
            let row = batch.prefs.get(&(self.user.as_uuid(), key.clone()));
            if row.is_some_and(|row| row.state == pref::State::Set) {
                batch.put_pref(self.user, key, None);
            }
        }
        Ok(())
    }
}

/// Notes that all is done, unless more is asked since.
struct Finish {
    user: UserId,
    scope: Scope,
}

impl Operation for Finish {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        needs.erasure(self.user);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let id = self.user.as_uuid();
        let row = batch.erasures.get(&id);
        if row.is_some_and(|row| row.scope == self.scope) {
            batch.erasures.remove(&id);
        }
        Ok(())
    }
}

/// Finishes the deletion of accounts until the engine closes.
pub(crate) async fn run(
    store: Arc<Store>,
    writer: Writer,
    limits: Limits,
    wake: Arc<Notify>,
    closing: CancellationToken,
) {
    let task = Task {
        store,
        writer,
        limits,
    };
    let work = async {
        loop {
            if let Err(error) = task.finish_all().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "erasing failed; it is tried again"
                );
            }
            // Another process may have begun one, and ended before it was done.
            let _ = tokio::time::timeout(task.limits.prune_interval, wake.notified()).await;
        }
    };
    closing.run_until_cancelled(work).await;
}

struct Task {
    store: Arc<Store>,
    writer: Writer,
    limits: Limits,
}

/// How far a deletion is taken.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The person is in no group and keeps nothing, which is soon done.
    Leave,
    /// All of it.
    Finish,
}

impl Task {
    /// Finishes what was begun, in two rounds: what somebody wrote may be much, and nobody else
    /// stays in their groups for as long.
    async fn finish_all(&self) -> Result<()> {
        self.take_all(Step::Leave).await?;
        self.take_all(Step::Finish).await
    }

    /// Takes everybody's deletion up to a step. Whoever's fails holds up nobody else's.
    async fn take_all(&self, step: Step) -> Result<()> {
        let mut key = Uuid::nil();
        loop {
            let db = self.store.read();
            let pending = queries::erasures(&db, key, ROWS_AT_ONCE).await?;
            let Some(last) = pending.last() else {
                return Ok(());
            };
            key = last.user_id;
            for row in &pending {
                if let Err(error) = self.take(row, step).await {
                    tracing::warn!(
                        user.id = %row.user_id,
                        error = &error as &dyn std::error::Error,
                        "erasing an account failed; it is tried again"
                    );
                }
            }
        }
    }

    async fn take(&self, row: &erasure::Model, step: Step) -> Result<()> {
        let (user, scope) = (row.user_id.into(), row.scope);
        self.leave_groups(user).await?;
        self.forget_own(user).await?;
        if let Step::Leave = step {
            return Ok(());
        }
        if scope == Scope::Messages {
            self.erase_messages(user).await?;
        }
        self.writer.run(Finish { user, scope }).await
    }

    async fn leave_groups(&self, user: UserId) -> Result<()> {
        let mut key = Uuid::nil();
        loop {
            let db = self.store.read();
            let groups = conversations::queries::groups_after(&db, user, key, ROWS_AT_ONCE).await?;
            let Some(last) = groups.last() else {
                return Ok(());
            };
            key = last.as_uuid();
            for conversation in groups {
                for attempt in 1..=HEIRS_MAX {
                    let heir = conversations::queries::heir(&db, conversation, user).await?;
                    let leave = LeaveForGood {
                        user,
                        conversation,
                        heir,
                    };
                    match self.writer.run(leave).await {
                        // The heir has left in between.
                        Err(Error::LastOwner) if attempt < HEIRS_MAX => {}
                        outcome => {
                            outcome?;
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn forget_own(&self, user: UserId) -> Result<()> {
        loop {
            let db = self.store.read();
            let blocked = queries::blocked_ids(&db, user, ROWS_AT_ONCE).await?;
            let keys = queries::pref_keys(&db, user, ROWS_AT_ONCE).await?;
            if blocked.is_empty() && keys.is_empty() {
                return Ok(());
            }
            let forget = ForgetOwn {
                user,
                blocked,
                keys,
            };
            self.writer.run(forget).await?;
        }
    }

    /// Looks through every conversation in which the person ever was. There is no index by sender,
    /// for which each send would have to touch a page at random; this reads beside the writer.
    async fn erase_messages(&self, user: UserId) -> Result<()> {
        let mut key = Uuid::nil();
        loop {
            let db = self.store.read();
            let all = conversations::queries::ever_after(&db, user, key, ROWS_AT_ONCE).await?;
            let Some((last, _)) = all.last() else {
                return Ok(());
            };
            key = last.as_uuid();
            for (conversation, last_seq) in all {
                let mut after = 0;
                while after < last_seq.get() {
                    let upto = after + SEQS_AT_ONCE;
                    let place = messages::queries::Place {
                        conversation,
                        after,
                        upto,
                    };
                    let (sent, reacted) = messages::queries::traces(&db, user, place).await?;
                    let sent = sent.into_iter().map(|id| (id, true));
                    let reacted = reacted.into_iter().map(|id| (id, false));
                    let traces: Vec<_> = sent.chain(reacted).collect();
                    for some in traces.chunks(self.limits.erased_at_once_max.max(1)) {
                        let erase = EraseOf {
                            user,
                            conversation,
                            messages: some.to_vec(),
                        };
                        self.writer.run(erase).await?;
                    }
                    after = upto;
                }
            }
        }
    }
}

impl Batch {
    /// Takes a username from its user, and keeps it from everybody else.
    fn reserve_username(&mut self, user: UserId) {
        let id = user.as_uuid();
        let Some(key) = self.users.get(&id).map(|row| row.username_key.clone()) else {
            return;
        };
        let reserved = Username::reserved(&key);
        self.move_username(id, &key, &reserved);
        if let Some(row) = self.users.change(&id) {
            row.username_key = reserved;
        }
    }
}
