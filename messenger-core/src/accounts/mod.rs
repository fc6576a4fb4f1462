//! What concerns a whole account, across the domains: its end. The calls are of
//! [`Users`](crate::users::Users).

pub(crate) mod erase;

pub use self::erase::Erase;
