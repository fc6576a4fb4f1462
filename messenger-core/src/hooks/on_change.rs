//! Who is told of changes, under which name, and what is counted of it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};

use super::change::{Change, ChangeResult, ChangeSettings};
use crate::error::{Error, Result};

/// The longest name, in characters.
const NAME_CHARS_MAX: usize = 64;

type Answer = Pin<Box<dyn Future<Output = ChangeResult> + Send>>;

/// What a host wants to be told of, under a name.
#[derive(Clone)]
pub(crate) struct OnChange {
    pub(crate) name: String,
    pub(super) settings: ChangeSettings,
    pub(super) take: Arc<dyn Fn(Change) -> Answer + Send + Sync>,
}

impl OnChange {
    pub(crate) fn new<F, D>(name: String, settings: ChangeSettings, take: F) -> Self
    where
        F: Fn(Change) -> D + Send + Sync + 'static,
        D: Future<Output = ChangeResult> + Send + 'static,
    {
        Self {
            name,
            settings,
            take: Arc::new(move |change| Box::pin(take(change))),
        }
    }
}

impl std::fmt::Debug for OnChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnChange")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Insists that names can be told apart.
pub(crate) fn check_names(hooks: &[OnChange]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for hook in hooks {
        let name = hook.name.as_str();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let fits = (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_name);
        if !fits {
            let rule = "must be 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'";
            return Err(Error::Setup(format!("the name of a hook {rule}"), None));
        }
        if !seen.insert(name) {
            let what = format!("two hooks are called {name}: give each a name of its own");
            return Err(Error::Setup(what, None));
        }
    }
    Ok(())
}

/// What is counted of one hook.
#[derive(Debug, Default)]
pub(crate) struct HookCounters {
    pub(crate) name: String,
    pub(crate) told: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) left_out: AtomicU64,
    pub(crate) missed: AtomicU64,
    pub(crate) waiting: AtomicUsize,
    pub(crate) position: AtomicI64,
    /// Since when something waits, in microseconds since 1970; 0 if nothing does.
    pub(crate) waiting_since: AtomicI64,
    pub(crate) is_stopped: AtomicBool,
}
