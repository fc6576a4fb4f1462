//! Builds one page of what a client has missed, from one snapshot.
//!
//! A run goes from what the client knows (`from`) to the head at its first page (`to`), through
//! conversations in the order of their ids, which no write can change. So a page that stops in the
//! middle can be gone on from without any state on the server, and a run ends however fast others
//! write. `manual/architecture.rs` has why nothing is skipped.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sea_orm::ConnectionTrait;
use uuid::Uuid;

use super::cursor::{FIRST_MAX, Run, Stage, Token};
use super::{ConversationChange, Gap, OwnChanges, Page, Pull, Removal, RemovalReason};
use crate::conversations::queries::{self as conversations, Candidate};
use crate::error::{Error, Result, ResyncReason};
use crate::fault::Fault;
use crate::ids::{Position, Seq, Stamp, UserId};
use crate::limits::Limits;
use crate::messages::Message;
use crate::messages::queries::{self as messages, Edits};
use crate::store::entity::message;
use crate::store::fence;
use crate::store::windows::{self, Window};
use crate::users::queries::Since;
use crate::users::{self, User};

/// Conversations whose messages are looked up together: at first, and at the most.
const AT_ONCE: usize = 8;
const AT_ONCE_MAX: usize = 64;
/// Conversations that are found together.
const FOUND_MAX: usize = 128;
/// Messages of a conversation that are looked at first, to see how many of them are new.
const PEEK: i64 = 4;
/// Pages whose bytes are looked up at once, if every message is as long as it may be.
const PAGES_AT_ONCE: usize = 3;

/// What a row adds to an answer beside its text, in bytes, roughly.
const MESSAGE_BYTES: usize = 400;
const CONVERSATION_BYTES: usize = 800;
const USER_BYTES: usize = 200;
const PREF_BYTES: usize = 150;
/// With the one whose it is.
const MARKER_BYTES: usize = 350;

/// One page being built.
struct Builder<'a, C> {
    db: &'a C,
    user: UserId,
    limits: &'a Limits,
    from: i64,
    run: Run,
    /// Rows that a page has, and rows and bytes that there still is room for.
    rows_max: usize,
    rows: usize,
    bytes: usize,
    is_empty: bool,
    visited: Vec<Visited>,
    messages: Vec<message::Model>,
    removals: Vec<Removal>,
    gaps: Vec<Gap>,
    users: Vec<User>,
    own: OwnChanges,
}

/// A conversation that is on the page.
struct Visited {
    candidate: Candidate,
    is_initial: bool,
}

/// What is to be said of one conversation's messages.
#[derive(Default)]
struct News {
    /// In the order of their last changes.
    rows: Vec<message::Model>,
    gap: Option<(i64, i64)>,
}

/// Whether there is room for more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Left,
    Full,
}

pub(super) async fn page(
    db: &impl ConnectionTrait,
    user: UserId,
    token: Option<&Token>,
    pull: &Pull,
    limits: &Limits,
) -> Result<(Page, Token)> {
    let head = fence::head(db).await?;
    let known = token.into_iter().flat_map(Token::positions);
    // Who begins knows nothing that could have been taken back.
    let seen = pull.seen.filter(|_| token.is_some());
    let planted = limits.planted;
    let checked = if planted.is(Fault::CheckOnlyToken) {
        1
    } else {
        usize::MAX
    };
    for position in known.chain(seen.map(Position::get)).take(checked) {
        if !fence::is_valid(db, &head, position).await? && !planted.is(Fault::ClampFuture) {
            return Err(Error::ResyncRequired(ResyncReason::HistoryDiverged));
        }
    }
    let mut from = token.map_or(0, |token| token.pos);
    if planted.is(Fault::ClampFuture) {
        from = from.min(head.pos);
    }
    if from != 0 && from < head.horizon_pos {
        return Err(Error::ResyncRequired(ResyncReason::Compacted));
    }
    let begun = token.and_then(|token| token.run.clone());
    let is_first = begun.is_none();
    let run = begun.unwrap_or_else(|| Run {
        to: head.pos,
        timeline: pull.timeline_limit,
        stage: Stage::Conversations,
        key: Uuid::nil(),
        sub: 0,
        first: Vec::new(),
    });
    let to = if planted.is(Fault::EndAtHead) {
        head.pos
    } else {
        run.to
    };
    let rows = usize::try_from(pull.limit).unwrap_or(usize::MAX);
    let mut builder = Builder {
        db,
        user,
        limits,
        from,
        run,
        rows_max: rows,
        rows,
        bytes: limits.page_bytes_max,
        is_empty: true,
        visited: Vec::new(),
        messages: Vec::new(),
        removals: Vec::new(),
        gaps: Vec::new(),
        users: Vec::new(),
        own: OwnChanges::default(),
    };
    let mut room = Room::Left;
    if from < head.pos || !is_first {
        if token.is_none() {
            room = builder.newest().await?;
        }
        if room == Room::Left && builder.run.stage == Stage::Conversations {
            room = builder.conversations().await?;
        }
        if room == Room::Left && builder.run.stage == Stage::Users {
            room = builder.people().await?;
        }
        if room == Room::Left && builder.run.stage == Stage::Blocks {
            room = builder.blocks().await?;
        }
        if room == Room::Left {
            room = builder.prefs().await?;
        }
    }
    let at = if planted.is(Fault::SeenFromRowsOnly) {
        builder.newest_row()
    } else {
        head.pos
    };
    let next = match room {
        Room::Full => Token {
            pos: from,
            at,
            run: Some(builder.run.clone()),
        },
        Room::Left => Token {
            pos: to,
            at,
            run: None,
        },
    };
    let has_more = room == Room::Full || head.pos > to;
    Ok((builder.finish(fence::stamp(&head), has_more).await?, next))
}

impl<C: ConnectionTrait> Builder<'_, C> {
    /// Who the user is, and the conversations with the newest messages, which a new client shows
    /// first. They come again in no other page of the run.
    async fn newest(&mut self) -> Result<Room> {
        let me = users::queries::by_ids(self.db, [self.user.as_uuid()]).await?;
        if me.is_empty() {
            return Err(Error::UserNotFound);
        }
        self.users.extend(me);
        let newest = conversations::newest(self.db, self.user, FIRST_MAX).await?;
        let all = newest.len() < FIRST_MAX;
        let mut rest = newest.as_slice();
        while !rest.is_empty() {
            let news = self.news(self.first_of(rest)).await?;
            rest = &rest[news.len()..];
            for (candidate, news) in news {
                if !self.fits(candidate, &news) {
                    return Ok(Room::Full);
                }
                self.run.first.push(candidate.own.conversation_id);
                self.visit(candidate.clone(), true, news);
            }
        }
        if all {
            // That was everything; whoever walks on finds only what is here already.
            self.run.key = Uuid::max();
            return Ok(Room::Left);
        }
        Ok(Room::Full)
    }

    /// All that has changed in the user's conversations, in the order of their ids.
    async fn conversations(&mut self) -> Result<Room> {
        loop {
            let limit = self.rows.clamp(1, FOUND_MAX);
            let (key, sub) = (self.run.key, self.run.sub);
            let found = conversations::changed(
                self.db,
                self.user,
                self.from,
                key,
                sub > 0,
                limit,
                self.limits.planted,
            )
            .await?;
            let all = found.len() < limit;
            let mut rest = found.as_slice();
            while !rest.is_empty() {
                let news = self.news(self.first_of(rest)).await?;
                rest = &rest[news.len()..];
                for (candidate, news) in news {
                    if self.conversation(candidate, news) == Room::Full {
                        return Ok(Room::Full);
                    }
                    self.run.key = candidate.own.conversation_id;
                    self.run.sub = 0;
                }
            }
            if all {
                self.run.stage = Stage::Users;
                self.run.key = Uuid::nil();
                return Ok(Room::Left);
            }
        }
    }

    /// As many conversations as may fit on the page, by how large those on it are, and one at
    /// least: what is looked up and does not fit is looked up again for the next page.
    fn first_of<'b>(&self, rest: &'b [Candidate]) -> &'b [Candidate] {
        let done = self.visited.len();
        let (rows, bytes) = self.used();
        let like_those = match done {
            0 => AT_ONCE,
            _ => Ord::min(
                self.rows.saturating_mul(done) / rows.max(1),
                self.bytes.saturating_mul(done) / bytes.max(1),
            ),
        };
        let (mut first, mut room) = (0, self.at_once());
        for candidate in rest.iter().take(like_those.min(AT_ONCE_MAX)) {
            if room == 0 {
                break;
            }
            first += 1;
            // Of what begins it is known how many messages there are to look up.
            if self.is_initial(candidate) {
                let all = candidate.last_seq - candidate.own.visible_from_seq + 1;
                let all = all.clamp(0, self.run.timeline.into());
                room = room.saturating_sub(usize::try_from(all).unwrap_or(0));
            }
        }
        &rest[..first.max(1)]
    }

    /// Messages that are looked up at once: as many as the page has room for, if they are like what
    /// is on it, and no more than few pages have, if all are as long as they may be.
    fn at_once(&self) -> usize {
        let limits = self.limits;
        let text = limits.message_chars_max.saturating_mul(4);
        let longest = text.saturating_add(limits.metadata_bytes_max);
        let longest = longest.saturating_add(MESSAGE_BYTES);
        let few = limits.page_bytes_max.saturating_mul(PAGES_AT_ONCE) / longest;
        let like_those = match self.used() {
            (0, _) | (_, 0) => usize::MAX,
            (rows, bytes) => self.bytes.saturating_mul(rows) / bytes,
        };
        self.rows.min(few).min(like_those)
    }

    /// Rows and bytes that are on the page.
    fn used(&self) -> (usize, usize) {
        let bytes = self.limits.page_bytes_max - self.bytes;
        (self.rows_max - self.rows, bytes)
    }

    fn conversation(&mut self, candidate: &Candidate, news: News) -> Room {
        let id = candidate.own.conversation_id;
        if self.belongs_to_the_next(candidate) {
            return Room::Left;
        }
        if let Some(removal) = candidate.removal() {
            // A client that begins knows nothing that could be taken away.
            if self.from > 0 && !self.limits.planted.is(Fault::SkipRemovals) {
                if self.rows == 0 {
                    return Room::Full;
                }
                self.rows -= 1;
                self.is_empty = false;
                self.removals.push(removal);
            }
            return Room::Left;
        }
        if self.run.first.contains(&id) {
            return Room::Left;
        }
        // Whoever came back in the middle of it starts the conversation again.
        let is_initial = self.is_initial(candidate);
        let goes_on = self.run.sub > 0 && self.run.key == id;
        if goes_on && !is_initial {
            return self.put(id, news.rows);
        }
        if is_initial {
            if !self.fits(candidate, &news) {
                return Room::Full;
            }
            self.visit(candidate.clone(), true, news);
            return Room::Left;
        }
        if self.rows == 0 || self.bytes == 0 {
            return Room::Full;
        }
        let rows = news.rows;
        let gap = News {
            rows: Vec::new(),
            gap: news.gap,
        };
        self.visit(candidate.clone(), false, gap);
        self.put(id, rows)
    }

    /// Whether a whole conversation fits on the page; on an empty page everything does.
    fn fits(&self, candidate: &Candidate, news: &News) -> bool {
        let bytes = self.bytes_beside(candidate) + news.rows.iter().map(size).sum::<usize>();
        self.is_empty || (news.rows.len() < self.rows && bytes <= self.bytes)
    }

    /// What a conversation brings beside its messages: its members and markers, in bytes.
    fn bytes_beside(&self, candidate: &Candidate) -> usize {
        let listed = candidate.lists_members(self.from, self.limits);
        let marked = candidate.marked(self.from, self.limits);
        CONVERSATION_BYTES + listed * USER_BYTES + marked * MARKER_BYTES
    }

    fn is_initial(&self, candidate: &Candidate) -> bool {
        candidate.own.joined_pos > self.from && !self.limits.planted.is(Fault::SkipInitial)
    }

    /// Whether the user came or went after the run began: then the next run says so, and only that.
    fn belongs_to_the_next(&self, candidate: &Candidate) -> bool {
        match candidate.removal() {
            Some(removal) => removal.version.get() > self.run.to,
            None => candidate.own.joined_pos > self.run.to,
        }
    }

    /// Puts a conversation on the page, with messages that belong to it as a whole.
    fn visit(&mut self, candidate: Candidate, is_initial: bool, news: News) {
        let conversation = candidate.own.conversation_id;
        let silent = self.limits.planted.is(Fault::NoGapMarker);
        if let Some((first, last)) = news.gap.filter(|_| !silent) {
            self.gaps.push(Gap {
                conversation_id: conversation.into(),
                first: Seq::stored(first),
                last: Seq::stored(last),
                // Filled in when the page is done.
                as_of: Position::ZERO,
            });
        }
        let bytes = self.bytes_beside(&candidate);
        self.rows = self.rows.saturating_sub(1 + news.rows.len());
        self.bytes = self.bytes.saturating_sub(bytes);
        for row in &news.rows {
            self.bytes = self.bytes.saturating_sub(size(row));
        }
        self.is_empty = false;
        self.messages.extend(news.rows);
        self.visited.push(Visited {
            candidate,
            is_initial,
        });
    }

    /// Puts messages on the page, one at least, in the order of their changes.
    fn put(&mut self, conversation: Uuid, rows: Vec<message::Model>) -> Room {
        let mut done = None;
        for row in rows {
            if done.is_some() && (self.rows == 0 || self.bytes == 0) {
                self.run.key = conversation;
                self.run.sub = done.unwrap_or(0);
                return Room::Full;
            }
            done = Some(row.changed_pos);
            self.rows = self.rows.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(size(&row));
            self.is_empty = false;
            self.messages.push(row);
        }
        Room::Left
    }

    /// What is to be said of the messages of some conversations: of those in the beginning that can
    /// be looked up at once, one at least.
    async fn news<'b>(&self, candidates: &'b [Candidate]) -> Result<Vec<(&'b Candidate, News)>> {
        let mut candidates = candidates;
        let timeline = i64::from(self.run.timeline);
        let mut found: HashMap<Uuid, News> = HashMap::new();
        let mut whole = Vec::new();
        let mut changed = Vec::new();
        for candidate in candidates {
            let id = candidate.own.conversation_id;
            if candidate.removal().is_some() || self.belongs_to_the_next(candidate) {
                continue;
            }
            let visible = candidate.own.visible_from_seq;
            if self.is_initial(candidate) {
                let last = self.top(candidate).await?;
                let first = Ord::max(visible, last - timeline + 1);
                if first <= last {
                    whole.push(Window {
                        conversation: id,
                        first,
                        last,
                    });
                }
                if first > visible {
                    found.entry(id).or_default().gap = Some((visible, first - 1));
                }
            } else if candidate.last_pos > self.from {
                changed.push((candidate, self.top(candidate).await?));
            }
        }
        for row in windows::rows(self.db, &whole).await? {
            // What has changed since the run began is new to the next one.
            if row.changed_pos <= self.run.to {
                found.entry(row.conversation_id).or_default().rows.push(row);
            }
        }

        // Sequence numbers rise with positions: what is new is found from the newest downwards.
        let window = |candidate: &Candidate, top: i64, first: i64| Window {
            conversation: candidate.own.conversation_id,
            first: Ord::max(candidate.own.visible_from_seq, first),
            last: top,
        };
        let peek = changed
            .iter()
            .map(|(it, top)| window(it, *top, top - PEEK + 1));
        let peek: Vec<Window> = peek.collect();
        let peeked = windows::sent_after(self.db, &peek, self.from, usize::MAX).await?;
        let mut newest = by_conversation(peeked);
        let more = changed.iter().filter(|(it, top)| {
            let rows = newest.get(&it.own.conversation_id).map_or(0, Vec::len);
            // All that were looked at are new, so there may be more of them.
            rows == usize::try_from(PEEK).unwrap_or(0) && timeline >= PEEK && *top > PEEK
        });
        let more = more.map(|(it, top)| window(it, *top, top - timeline));
        let more: Vec<Window> = more.collect();
        // No conversation has as many: the first one is whole.
        let limit = self.at_once() + usize::try_from(timeline).unwrap_or(0) + 2;
        let rows = windows::sent_after(self.db, &more, self.from, limit).await?;
        if rows.len() == limit
            && let Some(cut) = rows.last().map(|row| row.conversation_id)
        {
            let is_whole = |candidate: &Candidate| candidate.own.conversation_id != cut;
            let whole = candidates.iter().take_while(|it| is_whole(it)).count();
            candidates = &candidates[..whole];
            let whole = changed.iter().take_while(|(it, _)| is_whole(it)).count();
            changed.truncate(whole);
        }
        newest.extend(by_conversation(rows));

        let mut edits = Vec::new();
        for (candidate, top) in &changed {
            let id = candidate.own.conversation_id;
            let mut rows = newest.remove(&id).unwrap_or_default();
            let mut gap = None;
            if rows.len() as i64 > timeline {
                let kept = top - timeline;
                let visible = candidate.own.visible_from_seq;
                let first = self.after(id, self.from, visible, kept).await?;
                rows.retain(|row| row.seq > kept);
                gap = Some((first, kept));
            }
            edits.push(Edits {
                conversation: id,
                after: self.base(id),
                visible_from: candidate.own.visible_from_seq,
                without: gap.unwrap_or((1, 0)),
            });
            found.insert(id, News { rows, gap });
        }
        // One more than fits: enough to know where the page ends.
        let limit = self.rows + 1;
        for row in messages::edited(self.db, &edits, self.run.to, limit).await? {
            let news = found.entry(row.conversation_id).or_default();
            if !news.rows.iter().any(|new| new.seq == row.seq) {
                news.rows.push(row);
            }
        }
        for (candidate, _) in &changed {
            let id = candidate.own.conversation_id;
            if let Some(news) = found.get_mut(&id) {
                let (base, to) = (self.base(id), self.run.to);
                news.rows
                    .retain(|row| row.changed_pos > base && row.changed_pos <= to);
                news.rows.sort_by_key(|row| row.changed_pos);
            }
        }
        let news = candidates.iter().map(|candidate| {
            let news = found.remove(&candidate.own.conversation_id);
            (candidate, news.unwrap_or_default())
        });
        Ok(news.collect())
    }

    /// The change up to which a conversation's messages are done.
    fn base(&self, conversation: Uuid) -> i64 {
        if self.run.sub > 0 && self.run.key == conversation {
            self.run.sub
        } else {
            self.from
        }
    }

    /// The last message of a conversation that belongs to this run.
    async fn top(&self, candidate: &Candidate) -> Result<i64> {
        if candidate.last_pos <= self.run.to {
            return Ok(candidate.last_seq);
        }
        let id = candidate.own.conversation_id;
        let first = candidate.own.visible_from_seq;
        let after = self
            .after(id, self.run.to, first, candidate.last_seq + 1)
            .await?;
        Ok(after - 1)
    }

    /// The first message from `low` on that was sent after a position; `high` if there is none
    /// below it. Gallops down from `high`, since what is looked for is mostly near to it.
    async fn after(&self, conversation: Uuid, position: i64, low: i64, high: i64) -> Result<i64> {
        let (mut low, mut high, mut step) = (low, high, 1);
        while low < high {
            let probe = Ord::max(low, high - step);
            if messages::created_pos(self.db, conversation, probe).await? > position {
                high = probe;
                step *= 2;
            } else {
                low = probe + 1;
                break;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if messages::created_pos(self.db, conversation, middle).await? > position {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(high)
    }

    /// People whose profiles have changed and whom the client has from a small conversation.
    async fn people(&mut self) -> Result<Room> {
        // A client that begins gets everybody with what names them.
        if self.from == 0 || self.limits.planted.is(Fault::NoUserStage) {
            self.begin_own(Stage::Blocks);
            return Ok(Room::Left);
        }
        let limit = self.rows.max(1);
        let small = self.limits.small_conversation_members_max;
        let key = self.run.key;
        let found =
            users::queries::changed(self.db, self.user, self.from, key, small, limit).await?;
        let all = found.len() < limit;
        if let Some(last) = found.last() {
            self.run.key = last.id.as_uuid();
        }
        self.is_empty &= found.is_empty();
        self.rows = self.rows.saturating_sub(found.len());
        let bytes = found.len() * USER_BYTES;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.users.extend(found);
        if !all {
            return Ok(Room::Full);
        }
        self.begin_own(Stage::Blocks);
        Ok(Room::Left)
    }

    /// Goes on to what is only the user's, which is walked through in the order of its changes: a
    /// row that changes meanwhile leaves the run for the next one.
    fn begin_own(&mut self, stage: Stage) {
        self.run.stage = stage;
        self.run.key = Uuid::nil();
        self.run.sub = 0;
    }

    /// What of the user's own is still to be told.
    fn since(&self) -> Since {
        Since {
            after: Ord::max(self.from, self.run.sub),
            upto: self.run.to,
            gone_too: self.from > 0,
        }
    }

    /// Whom the user has blocked, and whom no longer.
    async fn blocks(&mut self) -> Result<Room> {
        // One more tells whether there are more.
        let limit = self.rows + 1;
        let found = users::queries::blocks_changed(self.db, self.user, self.since(), limit).await?;
        for block in found {
            if !self.has_room() {
                return Ok(Room::Full);
            }
            self.take(block.version, 2 * USER_BYTES);
            self.own.blocks.push(block);
        }
        self.begin_own(Stage::Prefs);
        Ok(Room::Left)
    }

    /// What the user keeps, and no longer keeps.
    async fn prefs(&mut self) -> Result<Room> {
        let limit = self.rows + 1;
        let found = users::queries::prefs_changed(self.db, self.user, self.since(), limit).await?;
        for pref in found {
            if !self.has_room() {
                return Ok(Room::Full);
            }
            let value = pref.value.as_ref().map_or(0, |value| value.as_str().len());
            self.take(pref.version, PREF_BYTES + value);
            self.own.prefs.push(pref);
        }
        Ok(Room::Left)
    }

    /// Whether one row more fits on the page; on an empty page it does.
    fn has_room(&self) -> bool {
        self.is_empty || (self.rows > 0 && self.bytes > 0)
    }

    /// Counts a row of the user's own that is put on the page.
    fn take(&mut self, version: Position, bytes: usize) {
        self.run.sub = version.get();
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_empty = false;
    }

    /// The last change that the page has a row of.
    fn newest_row(&self) -> i64 {
        let messages = self.messages.iter().map(|row| row.changed_pos);
        let visited = self.visited.iter().map(|it| it.candidate.changed_pos);
        messages.chain(visited).max().unwrap_or(self.from)
    }

    async fn finish(mut self, stamp: Stamp, has_more: bool) -> Result<Page> {
        for gap in &mut self.gaps {
            gap.as_of = stamp.as_of;
        }
        let from = Position::stored(self.from);
        let own = self.visited.iter().map(|it| it.candidate.own.clone());
        let own = own.collect();
        let mut read = conversations::read(self.db, own, from, self.limits).await?;
        let initial: BTreeSet<Uuid> = self
            .visited
            .iter()
            .filter(|it| it.is_initial)
            .map(|it| it.candidate.own.conversation_id)
            .collect();
        let small_max = i64::from(self.limits.small_conversation_members_max);
        let after: Vec<(Uuid, i64)> = self
            .visited
            .iter()
            .filter(|it| it.candidate.member_count <= small_max)
            .map(|it| {
                let moved = it.candidate.members_pos > self.from;
                let all =
                    it.is_initial || (moved && !self.limits.planted.is(Fault::NoThresholdRule));
                let after = if all { -1 } else { self.from };
                (it.candidate.own.conversation_id, after)
            })
            .collect();
        let markers = conversations::markers(self.db, &after).await?;
        // In the order in which they were visited: a new client's newest first.
        let order: HashMap<Uuid, usize> = self
            .visited
            .iter()
            .enumerate()
            .map(|(place, it)| (it.candidate.own.conversation_id, place))
            .collect();
        read.sort_by_key(|conversation| order.get(&conversation.id.as_uuid()).copied());
        let conversations: Vec<ConversationChange> = read
            .into_iter()
            .map(|conversation| ConversationChange {
                is_initial: initial.contains(&conversation.id.as_uuid()),
                lists_members: initial.contains(&conversation.id.as_uuid())
                    || conversation.members_version > from,
                conversation,
            })
            .collect();
        let mut messages: Vec<Message> = self.messages.into_iter().map(Message::from).collect();
        messages::mark_mine(self.db, self.user, &mut messages).await?;

        let mut users: BTreeMap<UserId, User> = BTreeMap::new();
        let listed = conversations
            .iter()
            .flat_map(|change| &change.conversation.members)
            .map(|member| member.user.clone());
        for user in listed.chain(self.users) {
            users.insert(user.id, user);
        }
        let named = messages
            .iter()
            .flat_map(|message| message.mentions.iter().chain([&message.sender_id]))
            .chain(markers.iter().map(|marker| &marker.user_id))
            .chain(self.own.blocks.iter().map(|block| &block.user_id));
        let missing: BTreeSet<Uuid> = named
            .filter(|id| !users.contains_key(id))
            .map(|id| id.as_uuid())
            .collect();
        for user in users::queries::by_ids(self.db, missing).await? {
            users.insert(user.id, user);
        }
        Ok(Page {
            users: users.into_values().collect(),
            conversations,
            messages,
            markers,
            removals: self.removals,
            gaps: self.gaps,
            own: self.own,
            stamp,
            has_more,
        })
    }
}

impl Candidate {
    /// What a client is told that knew the conversation at `from`, if the user is not in it now.
    fn removal(&self) -> Option<Removal> {
        let (reason, version) = match self.gone? {
            conversations::Gone::Left => (RemovalReason::Left, self.own.changed_pos),
            conversations::Gone::Removed => (RemovalReason::Removed, self.own.changed_pos),
            conversations::Gone::Deleted => (RemovalReason::Deleted, self.changed_pos),
        };
        Some(Removal {
            conversation_id: self.own.conversation_id.into(),
            reason,
            version: Position::stored(version),
        })
    }

    /// How many markers come with it at the most.
    fn marked(&self, from: i64, limits: &Limits) -> usize {
        let small = self.member_count <= i64::from(limits.small_conversation_members_max);
        match small && self.last_pos > from {
            true => usize::try_from(self.member_count).unwrap_or(0),
            false => 0,
        }
    }

    /// How many members are listed with it for a client that knows it as of `from`.
    fn lists_members(&self, from: i64, limits: &Limits) -> usize {
        let small = self.member_count <= i64::from(limits.small_conversation_members_max);
        let changed = self.members_pos > from || self.own.joined_pos > from;
        match (small, changed) {
            (true, true) => usize::try_from(self.member_count).unwrap_or(0),
            _ => 1,
        }
    }
}

fn by_conversation(rows: Vec<message::Model>) -> HashMap<Uuid, Vec<message::Model>> {
    let mut found: HashMap<Uuid, Vec<message::Model>> = HashMap::new();
    for row in rows {
        found.entry(row.conversation_id).or_default().push(row);
    }
    found
}

fn size(row: &message::Model) -> usize {
    let metadata = row.metadata.as_ref().map_or(0, String::len);
    MESSAGE_BYTES + row.content.len() + metadata
}
