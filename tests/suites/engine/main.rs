//! The engine by its own door, on both databases: what a host that embeds it relies on.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says its seed, and stops at what it does not expect"
)]

mod replica;
mod world;

mod accounts;
mod administration;
mod attachments;
mod attachments_kept;
mod backups;
mod cancellation;
mod changes;
mod changes_not_taken;
mod changes_resumed;
mod crashes;
mod deletions;
mod exports;
mod faults;
mod groups;
mod histories;
mod hooks;
mod hosts;
mod late_commits;
mod late_looks;
mod limits;
mod live;
mod message_changes;
mod opening;
mod outages;
mod own;
mod presence;
mod pull;
mod races;
mod restores;
mod resume;
mod search;
mod several_processes;
mod stats;
mod typing;
