//! What concerns a whole account, across the domains: its end, and taking it along. The calls are of
//! [`Users`](crate::users::Users).

pub(crate) mod erase;
mod export;

pub use self::erase::Erase;
pub use self::export::Export;
pub(crate) use self::export::places;
