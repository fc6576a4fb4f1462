//! What one person may hold of what there is for all, so that a single client can neither take all of it
//! nor all the memory: connections that are told events, and answers that nobody reads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hyper::body::Bytes;
use messenger_core::UserId;

/// Who asks, once a route has found out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asker(Arc<OnceLock<UserId>>);

impl Asker {
    pub(crate) fn is(&self, user: UserId) {
        // A second route would name the same one.
        let _ = self.0.set(user);
    }

    pub(crate) fn user(&self) -> Option<UserId> {
        self.0.get().copied()
    }
}

/// How much of something is held, by all and by each.
#[derive(Debug)]
pub(crate) struct Shares {
    held: Mutex<Held>,
    of_all_max: usize,
    of_one_max: usize,
}

#[derive(Debug, Default)]
struct Held {
    of_all: usize,
    of_one: HashMap<UserId, usize>,
}

impl Shares {
    pub(crate) fn new(of_all_max: usize, of_one_max: usize) -> Arc<Self> {
        Arc::new(Self {
            held: Mutex::default(),
            of_all_max,
            of_one_max,
        })
    }

    /// Gives somebody so much more, while it is not too much; whoever has nothing gets it whatever it is.
    pub(crate) fn take(self: &Arc<Self>, user: UserId, amount: usize) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all = held.of_all.saturating_add(amount);
        let before = held.of_one.get(&user).copied().unwrap_or(0);
        let of_one = before.saturating_add(amount);
        if of_all > self.of_all_max || (before > 0 && of_one > self.of_one_max) {
            return None;
        }
        held.of_all = of_all;
        held.of_one.insert(user, of_one);
        Some(Share {
            shares: Arc::clone(self),
            user,
            amount,
        })
    }
}

/// What somebody holds; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    user: UserId,
    amount: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = self.shares.held.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        held.of_all -= self.amount;
        if let Some(of_one) = held.of_one.get_mut(&self.user) {
            *of_one -= self.amount;
            if *of_one == 0 {
                held.of_one.remove(&self.user);
            }
        }
    }
}

/// Bytes of somebody, who holds them until the last of them has left.
pub(crate) fn held(bytes: Bytes, share: Share) -> Bytes {
    struct Theirs {
        bytes: Bytes,
        _share: Share,
    }
    impl AsRef<[u8]> for Theirs {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Theirs {
        bytes,
        _share: share,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nobody_holds_more_than_their_share_and_all_together_no_more_than_there_is() {
        let shares = Shares::new(10, 4);
        let [alice, bob, carol] = [1, 2, 3].map(|n| UserId::from(Uuid::from_u128(n)));

        let first = shares.take(alice, 3).expect("a share");
        assert!(shares.take(alice, 2).is_none());
        let second = shares.take(alice, 1).expect("the rest");
        let large = shares.take(bob, 6).expect("whatever it is");
        assert!(shares.take(carol, 1).is_none());

        drop(first);
        assert!(shares.take(alice, 4).is_none());
        drop((second, large));
        assert!(shares.take(alice, 4).is_some());
        assert!(shares.take(carol, 11).is_none());
    }

    #[test]
    fn bytes_are_held_until_the_last_of_them_has_left() {
        let shares = Shares::new(4, 4);
        let alice = UserId::from(Uuid::from_u128(1));
        let share = shares.take(alice, 4).expect("a share");

        let mut bytes = held(Bytes::from_static(b"four"), share);
        let half = bytes.split_off(2);
        drop(bytes);
        assert!(shares.take(alice, 1).is_none());

        drop(half);
        assert!(shares.take(alice, 1).is_some());
    }
}
