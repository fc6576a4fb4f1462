//! The manual: what does not belong to one call.
//!
//! - [`architecture`]: the map of the house, and what is deliberately not in it;
//! - [`guarantees`]: what is promised, and the test of each promise;
//! - [`embedding`]: the engine in a program of one's own;
//! - [`writing_a_client`]: what a client that keeps its own data does;
//! - [`operating`]: the server, its settings and what they still mean.

pub mod architecture;
pub mod embedding;
pub mod guarantees;
pub mod operating;
pub mod writing_a_client;
