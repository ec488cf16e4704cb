//! Whose key it is, and so what it opens.

use std::{fmt, sync::Arc};

use sandbox_core::api::Api;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What is kept of a key: enough to know it again, and useless to a thief.
#[derive(Clone, Copy)]
struct KeyHash([u8; 32]);

impl KeyHash {
    fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Whether both are one, in the same time for every answer.
    fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// The keys that are known, each with the platform as its holder sees it. Clones share them: every
/// request has one.
#[derive(Clone, Default)]
pub struct Keyring {
    doors: Arc<Vec<(KeyHash, Arc<dyn Api>)>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring({} keys)", self.doors.len())
    }
}

impl Keyring {
    /// No keys: nobody comes in.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With another key, whose holder asks through this. Of two that are the same, the first counts.
    #[must_use]
    pub fn with(mut self, key: &str, api: Arc<dyn Api>) -> Self {
        Arc::make_mut(&mut self.doors).push((KeyHash::of(key), api));
        self
    }

    /// What a key opens. It takes as long whichever it is, and where it is none.
    #[must_use]
    pub fn open(&self, key: &str) -> Option<Arc<dyn Api>> {
        let shown = KeyHash::of(key);
        let mut found = None;
        for (hash, api) in &*self.doors {
            let fits: bool = hash.is(&shown).into();
            if fits && found.is_none() {
                found = Some(api);
            }
        }
        found.map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox_core::{
        audit::Actor,
        caller::Caller,
        engine::{Engine, EngineConfig, Parts},
        sim::{MemoryStore, SimClock, SimHost, SimQueue},
    };

    #[tokio::test]
    async fn a_key_opens_its_own_door_and_does_not_show() {
        let clock = Arc::new(SimClock::new());
        let parts = Parts {
            store: Arc::new(MemoryStore::new()),
            host: Arc::new(SimHost::new(clock.clone())),
            queue: Arc::new(SimQueue::new()),
            clock,
        };
        let engine = Engine::start(parts, EngineConfig::DEFAULT).await.unwrap();
        let api = || -> Arc<dyn Api> { Arc::new(engine.api(Caller::admin(Actor::app()))) };
        let (one, two) = (api(), api());
        let keys = Keyring::new()
            .with("sbk_1", Arc::clone(&one))
            .with("sbk_2", Arc::clone(&two));
        assert!(Arc::ptr_eq(&keys.open("sbk_1").unwrap(), &one));
        assert!(Arc::ptr_eq(&keys.open("sbk_2").unwrap(), &two));
        for wrong in ["", "sbk_", "sbk_11", "SBK_1"] {
            assert!(keys.open(wrong).is_none(), "{wrong}");
        }
        assert_eq!(format!("{keys:?}"), "Keyring(2 keys)");
        engine.shutdown().await;
    }
}
