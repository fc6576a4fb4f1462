//! The binary as a process: how it is set up, what it leaves on the disk and in its log, how it
//! stops, what it survives, and how much memory it takes.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

mod attachments;
mod attacks;
mod backups;
mod commands;
mod crash;
mod logs;
mod memory;
mod secrets;
mod settings;
mod shutdown;
mod traces;
