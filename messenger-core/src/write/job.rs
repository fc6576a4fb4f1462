//! An operation in the queue, with the place where its answer goes.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;
use tracing::Span;

use super::{Batch, Needs, Operation};
use crate::error::{Error, Result};

/// An [`Operation`] without its type.
pub(super) trait Job: Send {
    fn needs(&self, needs: &mut Needs);
    fn bytes(&self) -> usize;
    fn is_upkeep(&self) -> bool;
    /// Its part in the trace of whoever asked for it.
    fn span(&self) -> &Span;
    /// Whether nobody waits for the answer any more.
    fn is_abandoned(&self) -> bool;
    /// Applies the operation and keeps its outcome. `Err` says that it panicked, after which the
    /// batch can not be trusted.
    fn apply(&mut self, batch: &mut Batch) -> Result<(), Panicked>;
    /// Whether it was applied and broke a rule.
    fn is_refused(&self) -> bool;
    /// Hands the outcome to the caller, if there still is one.
    fn answer(self: Box<Self>);
    fn fail(self: Box<Self>, error: Error);
}

/// What an operation that panicked said.
#[derive(Debug)]
pub(super) struct Panicked(pub(super) String);

pub(super) struct Queued<O: Operation> {
    operation: O,
    outcome: Option<Result<O::Output>>,
    reply: oneshot::Sender<Result<O::Output>>,
    span: Span,
}

impl<O: Operation> Queued<O> {
    pub(super) fn new(operation: O, reply: oneshot::Sender<Result<O::Output>>, span: Span) -> Self {
        Self {
            operation,
            outcome: None,
            reply,
            span,
        }
    }
}

impl<O: Operation> Job for Queued<O> {
    fn needs(&self, needs: &mut Needs) {
        self.operation.needs(needs);
    }

    fn bytes(&self) -> usize {
        self.operation.bytes()
    }

    fn is_upkeep(&self) -> bool {
        O::IS_UPKEEP
    }

    fn span(&self) -> &Span {
        &self.span
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn apply(&mut self, batch: &mut Batch) -> Result<(), Panicked> {
        // Whoever sees a panic throws the batch away, so nothing half-changed is looked at.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.operation.apply(batch)))
            .map_err(|panic| Panicked(message(panic.as_ref())))?;
        self.outcome = Some(outcome);
        Ok(())
    }

    fn is_refused(&self) -> bool {
        matches!(self.outcome, Some(Err(_)))
    }

    fn answer(self: Box<Self>) {
        let outcome = self
            .outcome
            .unwrap_or_else(|| Err(Error::Internal("an operation has no outcome".to_owned())));
        // Nobody may be waiting any more; what was committed stays.
        let _ = self.reply.send(outcome);
    }

    fn fail(self: Box<Self>, error: Error) {
        let _ = self.reply.send(Err(error));
    }
}

impl fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "an operation panicked".to_owned())
}
