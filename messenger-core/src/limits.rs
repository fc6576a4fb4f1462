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

    /// Length of an attachment, in bytes. 100 MiB.
    pub attachment_bytes_max: u64,
    /// Bytes that uploads leave free on the disk of a folder of attachments, so that those who send find
    /// room. 256 MiB.
    pub attachments_free_bytes_min: u64,
    /// Length of the name of an attachment, in characters. 255, what file systems take.
    pub attachment_name_chars_max: usize,
    /// Attachments of one message. 10.
    pub attachments_per_message_max: usize,
    /// Attachments of one person that no message has. 100.
    pub attachments_unsent_per_user_max: u32,
    /// How long an attachment that no message has is kept. 24 h.
    pub attachment_grace: Duration,
    /// Uploads under way at a time; past it the call fails with [`Busy`](crate::Error::Busy). 32,
    /// since each holds up to 2 MiB, or 16 MiB where they go to S3.
    pub uploads_max: usize,
    /// Uploads of one person under way at a time. 4.
    pub uploads_per_user_max: usize,
    /// Time waited for the bytes of an upload in which [`upload_window_bytes_min`](Self::upload_window_bytes_min)
    /// must come, or it ends. 30 s.
    pub upload_window: Duration,
    /// Bytes that must come in each such time. 32 KiB, what a very slow line brings.
    pub upload_window_bytes_min: u64,
    /// How long the bytes of an upload may come, and no longer than half of
    /// [`attachment_grace`](Self::attachment_grace), after which it is taken away. 6 h.
    pub upload_time_max: Duration,
    /// Downloads under way at a time; past it the call fails with [`Busy`](crate::Error::Busy). 256,
    /// since each holds an open file and 64 KiB.
    pub downloads_max: usize,
    /// Downloads of one person under way at a time. 16.
    pub downloads_per_user_max: usize,
    /// Length of a picture of which a preview is made, in bytes. 20 MiB.
    pub preview_source_bytes_max: u64,
    /// Memory that it takes to make a preview, of which there is one at a time, in bytes: a picture
    /// that would take more has none. 44 MiB, enough for 12 million pixels.
    pub preview_memory_bytes_max: u64,

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
    /// Length of a text to search messages for, in characters. 256.
    pub search_chars_max: usize,
    /// Messages in one page of a search. 50.
    pub search_messages_max: u32,
    /// Messages that one page of a search looks at, since what the index finds may turn out not to
    /// be meant; past it the page says where to go on. 1,000.
    pub search_looked_at_max: usize,
    /// Conversations that one search looks through, those that were active last. 1,000.
    pub search_conversations_max: usize,
    /// Searches under way at a time, which leaves connections to everybody else. 2.
    pub searches_max: usize,
    /// Searches that wait for their turn or are under way; past it the call fails with
    /// [`Busy`](crate::Error::Busy). 256.
    pub searches_waiting_max: usize,
    /// Those of one person, so that nobody takes every turn. 4.
    pub searches_per_user_max: usize,
    /// How long a search waits for others to end, and then for the index to have what was sent
    /// before. 1 s each.
    pub search_wait_max: Duration,
    /// How long a page of a search goes on looking for more; past it the page says where to go on.
    /// 1 s.
    pub search_time_max: Duration,
    /// How often the index looks for new messages if nobody searches. 1 s.
    pub search_index_interval: Duration,
    /// Positions that the index may be behind while others write and nobody searches; past it the
    /// index goes on beside them. 100,000, for which it takes some seconds.
    pub search_index_behind_max: u64,
    /// Messages that one step of the index takes: few, since senders wait for it. 200.
    pub search_indexed_at_once_max: u64,
    /// People in one page of those whom an administrator lists. 1,000.
    pub page_people_max: u32,
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
    /// Bootstraps and pages of a sync that are read for one person at a time; more wait for these, up to
    /// [`read_wait_max`](Self::read_wait_max), which leaves connections to everybody else. 2.
    pub syncs_per_user_max: usize,
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

    /// Changes that a hook of the host is told of at a time, of different conversations. 8.
    pub hook_lanes_at_once_max: usize,
    /// Lines of the change log that are read at a time to tell a hook. 100.
    pub hook_lines_max: usize,
    /// Conversations of which a hook could not be told and that wait while others go on; past it the
    /// others wait too. 1,000.
    pub hook_lanes_waiting_max: usize,
    /// How long a conversation is told without a break while others have something to be told. 5 s.
    pub hook_turn_max: Duration,
    /// How often it is written down how far a hook was told: what was told since is told again after a
    /// crash. Also how long all others wait for a conversation that is slow. 1 s.
    pub hook_save_interval: Duration,
    /// How long an engine tells a hook before it has to say that it still does; if it does not,
    /// another engine on the database takes over. 10 s.
    pub hook_lease: Duration,
    /// Age up to which the change log is kept for a hook that is behind. Past it the hook is told that
    /// it missed something. 7 days.
    pub hook_behind_max: Duration,

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
            attachment_bytes_max: 100 * 1024 * 1024,
            attachments_free_bytes_min: 256 * 1024 * 1024,
            attachment_name_chars_max: 255,
            attachments_per_message_max: 10,
            attachments_unsent_per_user_max: 100,
            attachment_grace: Duration::from_secs(24 * 60 * 60),
            uploads_max: 32,
            uploads_per_user_max: 4,
            upload_window: Duration::from_secs(30),
            upload_window_bytes_min: 32 * 1024,
            upload_time_max: Duration::from_secs(6 * 60 * 60),
            downloads_max: 256,
            downloads_per_user_max: 16,
            preview_source_bytes_max: 20 * 1024 * 1024,
            preview_memory_bytes_max: 44 * 1024 * 1024,
            group_members_max: 10_000,
            members_added_max: 128,
            title_chars_max: 128,
            page_members_max: 500,
            small_conversation_members_max: 128,
            typing_max: 10_000,
            page_messages_max: 100,
            page_reactions_max: 100,
            search_users_max: 50,
            search_chars_max: 256,
            search_messages_max: 50,
            search_looked_at_max: 1_000,
            search_conversations_max: 1_000,
            searches_max: 2,
            searches_waiting_max: 256,
            searches_per_user_max: 4,
            search_wait_max: Duration::from_secs(1),
            search_time_max: Duration::from_secs(1),
            search_index_interval: Duration::from_secs(1),
            search_index_behind_max: 100_000,
            search_indexed_at_once_max: 200,
            page_people_max: 1_000,
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
            syncs_per_user_max: 2,
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
            hook_lanes_at_once_max: 8,
            hook_lines_max: 100,
            hook_lanes_waiting_max: 1_000,
            hook_turn_max: Duration::from_secs(5),
            hook_save_interval: Duration::from_secs(1),
            hook_lease: Duration::from_secs(10),
            hook_behind_max: Duration::from_secs(7 * 24 * 60 * 60),
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
