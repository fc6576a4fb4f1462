//! Every bound of the engine, with its unit. What can grow has a line here and a test that
//! reaches it.

use std::time::Duration;

use crate::fault::Planted;

/// The bounds of an engine. Start from [`Limits::default`] and change fields.
///
/// # Examples
///
/// ```
/// let mut limits = messenger_core::Limits::default();
/// limits.message_chars_max = 4_000;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Length of a message, in characters (Unicode scalar values). 2,000.
    pub message_chars_max: usize,

    /// Length of the host's facts about a message, in bytes of JSON. 4,096.
    pub metadata_bytes_max: usize,
    /// Levels of arrays and objects in each other, in the host's facts about a message and in what
    /// somebody keeps. 64: many readers of JSON give up at 128, and what is told has more around it.
    pub json_depth_max: usize,
    /// Members that one message may name. 50.
    pub mentions_max: usize,
    /// Length of a reaction, in bytes: an emoji, or a short word. 64.
    pub reaction_bytes_max: usize,
    /// Different reactions to one message. 50.
    pub reactions_per_message_max: usize,
    /// Different reactions of one person to one message. 10.
    pub reactions_per_user_max: usize,

    /// Members of a group. 10,000.
    pub group_members_max: u32,
    /// People who are added to a group at once. 128.
    pub members_added_max: usize,
    /// Length of a group's title, in characters. 128.
    pub title_chars_max: usize,
    /// Members in one page of a conversation's member list. 500.
    pub page_members_max: u32,
    /// Members up to which a conversation is small: everybody sees who belongs to it and how far
    /// everybody has read. Larger ones show that on demand. 128.
    pub small_conversation_members_max: u32,
    /// People who are writing somewhere at one time; of more, others are not told. 10,000.
    pub typing_max: usize,

    /// Messages in one page of history. 100.
    pub page_messages_max: u32,
    /// Reactions in one page of who reacts to a message. 100.
    pub page_reactions_max: u32,
    /// Users in one answer to a search. 50.
    pub search_users_max: u32,
    /// People whom one person has blocked. 10,000.
    pub blocks_per_user_max: u32,
    /// People in one page of whom somebody has blocked. 500.
    pub page_blocks_max: u32,
    /// What one person keeps for themselves, in keys with a value. 100.
    pub prefs_per_user_max: u32,
    /// Keys that one person has ever used: a key that was deleted is still told to devices that
    /// were away. 1,000.
    pub pref_keys_per_user_max: u32,
    /// Length of what is kept under a key, in bytes of JSON. 4,096.
    pub pref_bytes_max: usize,
    /// Messages that one step of erasing what somebody wrote takes: few, since senders wait for it.
    /// 100.
    pub erased_at_once_max: usize,
    /// Ids in one look-up of users. 100.
    pub batch_users_max: usize,

    /// Newest messages of one conversation in a bootstrap. 50.
    pub bootstrap_messages_per_conversation_max: u32,
    /// Messages in one bootstrap, shared out evenly; each conversation gets at least its last
    /// one. 5,000.
    pub bootstrap_messages_max: u32,
    /// Missed messages of one conversation in one answer to a sync by sequence numbers; more are
    /// announced by `has_more`. 100, which existing clients count on.
    pub changes_messages_per_conversation_max: u32,
    /// Missed messages in one answer to a sync by sequence numbers. 20,000.
    pub changes_messages_max: u32,
    /// Bytes of messages in one bootstrap or one answer to a sync; past it a sync says `has_more`
    /// and a bootstrap has only the last message of a conversation. 8 MiB, and what one look-up
    /// brings.
    pub sync_bytes_max: usize,
    /// Rows in one page of a sync by cursor: messages, conversations, people. 500.
    pub page_rows_max: u32,
    /// New messages of one conversation in a sync by cursor, the newest; older ones are a hole that
    /// is declared. 200.
    pub page_timeline_max: u32,
    /// Bytes in one page of a sync by cursor, roughly; one conversation may go past it. 1 MiB.
    pub page_bytes_max: usize,
    /// How long a sync by cursor may wait for something to say. 25 s.
    pub page_wait_max: Duration,
    /// Conversations that one request may name: in a sync's map, in a list of ids. 10,000.
    pub conversations_named_max: usize,

    /// Sessions that one user may have at a time; past it the one unused for longest ends. 100.
    pub sessions_per_user_max: usize,
    /// Ended sessions that are remembered in memory until their access tokens expire; past it
    /// each check of a token reads the database. 100,000.
    pub revocations_remembered_max: usize,
    /// Password hashings under way at a time: one a core, since each takes a core and 19 MiB.
    pub hashings_max: usize,
    /// Password hashings that may wait; past it the call fails with [`Busy`](crate::Error::Busy).
    /// 64.
    pub hashings_queued_max: usize,

    /// Exports of whole accounts under way at a time, one of each person; past it the call fails
    /// with [`Busy`](crate::Error::Busy). 4, since each reads for as long as it is taken.
    pub exports_max: usize,

    /// Writes that may wait for the writer; past it a call waits for a place. 4,096.
    pub writes_queued_max: usize,
    /// How long a write waits for a place in that queue before it fails with
    /// [`Busy`](crate::Error::Busy). 10 s.
    pub write_queue_wait_max: Duration,
    /// How long a transaction may take on PostgreSQL before its connection is given up and
    /// replaced. 10 s.
    pub transaction_wait_max: Duration,
    /// Writes in one transaction. 256.
    pub batch_operations_max: usize,
    /// Bytes of content in one transaction. 1 MiB.
    pub batch_bytes_max: usize,
    /// Rows that the writer keeps in memory between two transactions, of each kind. 20,000.
    pub working_set_rows_max: usize,

    /// Events that a subscriber may be behind before it reads from the database. 64.
    pub subscriber_queue_max: usize,
    /// Recent changes of who belongs to a conversation that are kept in memory, for subscribers who
    /// are just arriving. 4,096.
    pub hub_joins_max: usize,
    /// Transactions that may wait for the hub; past it the hub reads them from the database.
    /// 1,024.
    pub hub_queue_max: usize,
    /// Positions of the change log that are kept, together with
    /// [`event_age_min`](Self::event_age_min). 1,000,000.
    pub events_kept_min: u64,
    /// Age up to which the change log is kept whatever its length. 24 h.
    pub event_age_min: Duration,

    /// How long a session, and a spent refresh token, is kept after its end: that long its reuse
    /// is still seen. 30 days.
    pub ended_sessions_kept: Duration,
    /// How often it is looked for lines of the change log and sessions that may go. 1 min.
    pub prune_interval: Duration,

    /// Length of SQLite's write-ahead log, in bytes, past which a write waits up to a second for
    /// those who read, so that the log can be moved into the database whole; if somebody reads for
    /// longer, it is tried again a quarter later. 128 MiB, four times what the log has without
    /// readers who overlap.
    pub sqlite_log_bytes_max: u64,
    /// Connections to the database that answer reads. An engine holds as many, one to write, and
    /// one to follow the change log. 4.
    pub read_connections: u32,
    /// How long a read waits for a connection. If the engine's own look at the change log waits
    /// longer, its connection has fallen silent and is replaced (PostgreSQL). 10 s.
    pub read_wait_max: Duration,
    /// How long a read of several things may take, a sync for example. Then it fails, and on
    /// PostgreSQL the connections that read are taken for silent and replaced. 30 s.
    pub read_time_max: Duration,

    /// No bound: what a test has planted goes wherever the bounds go.
    pub(crate) planted: Planted,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            message_chars_max: 2_000,
            metadata_bytes_max: 4_096,
            json_depth_max: 64,
            mentions_max: 50,
            reaction_bytes_max: 64,
            reactions_per_message_max: 50,
            reactions_per_user_max: 10,
            group_members_max: 10_000,
            members_added_max: 128,
            title_chars_max: 128,
            page_members_max: 500,
            small_conversation_members_max: 128,
            typing_max: 10_000,
            page_messages_max: 100,
            page_reactions_max: 100,
            search_users_max: 50,
            blocks_per_user_max: 10_000,
            page_blocks_max: 500,
            prefs_per_user_max: 100,
            pref_keys_per_user_max: 1_000,
            pref_bytes_max: 4_096,
            erased_at_once_max: 100,
            batch_users_max: 100,
            bootstrap_messages_per_conversation_max: 50,
            bootstrap_messages_max: 5_000,
            changes_messages_per_conversation_max: 100,
            changes_messages_max: 20_000,
            sync_bytes_max: 8 * 1024 * 1024,
            page_rows_max: 500,
            page_timeline_max: 200,
            page_bytes_max: 1024 * 1024,
            page_wait_max: Duration::from_secs(25),
            conversations_named_max: 10_000,
            sessions_per_user_max: 100,
            revocations_remembered_max: 100_000,
            hashings_max: cores,
            hashings_queued_max: 64,
            exports_max: 4,
            writes_queued_max: 4_096,
            write_queue_wait_max: Duration::from_secs(10),
            transaction_wait_max: Duration::from_secs(10),
            batch_operations_max: 256,
            batch_bytes_max: 1024 * 1024,
            working_set_rows_max: 20_000,
            subscriber_queue_max: 64,
            hub_joins_max: 4_096,
            hub_queue_max: 1_024,
            events_kept_min: 1_000_000,
            event_age_min: Duration::from_secs(24 * 60 * 60),
            ended_sessions_kept: Duration::from_secs(30 * 24 * 60 * 60),
            prune_interval: Duration::from_secs(60),
            sqlite_log_bytes_max: 128 * 1024 * 1024,
            read_connections: 4,
            read_wait_max: Duration::from_secs(10),
            read_time_max: Duration::from_secs(30),
            planted: Planted::default(),
        }
    }
}
