//! Faults of the sync that a test plants in an engine, to see that it finds them.
//!
//! Only with the feature `test-util`. Without it nothing can be planted, and what asks for a fault
//! is compiled to nothing.

/// A fault of the sync, as somebody might write it by mistake.
#[cfg_attr(
    not(feature = "test-util"),
    expect(unreachable_pub, reason = "only the feature gives it out")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A run walks through conversations in the order of their last changes.
    OrderByRecency,
    /// A conversation that was joined is told like one that is known.
    SkipInitial,
    /// Nobody is told that they are out of a conversation.
    SkipRemovals,
    /// What a page leaves out is not said.
    NoGapMarker,
    /// A run that has ended leaves the client at the head of its last page, not at where it went to.
    EndAtHead,
    /// Profiles that have changed are not told.
    NoUserStage,
    /// The members and markers of a conversation that has become small are told like those of one
    /// that always was.
    NoThresholdRule,
    /// No incarnation of the database begins a fence.
    NoFence,
    /// Only where a cursor stands is checked, not what else the client knows.
    CheckOnlyToken,
    /// A page says that the client knows what the newest row on it says, not the page's moment.
    SeenFromRowsOnly,
    /// A position from the future counts as the head.
    ClampFuture,
    /// What came through the channel while the pages were read is thrown away.
    AttachWithoutRing,
    /// The place in the channel is taken after the pages were read.
    SubscribeAfterSnapshot,
    /// What the pages contain is told again.
    NoSkipUntil,
    /// What a full channel has lost is not read again.
    DropOnOverflow,
    /// Changes of messages are told to members who may not see the messages.
    LiveIgnoresVisibleFrom,
}

/// The fault of an engine, if it has one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Planted(#[cfg(feature = "test-util")] pub(crate) Option<Fault>);

impl Planted {
    /// Whether the engine has this fault.
    #[cfg(feature = "test-util")]
    pub(crate) fn is(self, fault: Fault) -> bool {
        self.0 == Some(fault)
    }

    /// Whether the engine has this fault: never.
    #[cfg(not(feature = "test-util"))]
    pub(crate) const fn is(self, _: Fault) -> bool {
        false
    }
}
