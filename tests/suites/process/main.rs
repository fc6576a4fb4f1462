//! The binary as a process: how it is set up, what it leaves on the disk and in its log, how it
//! stops, and what it survives.

#![expect(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

mod attacks;
mod crash;
mod logs;
mod secrets;
mod settings;
mod shutdown;
