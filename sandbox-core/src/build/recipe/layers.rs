//! The chain of layers.
//!
//! ```text
//! base, size ─► first link ─► + step 1 ─► key 1 ─► + step 2 (+ what it copies) ─► key 2 …
//! ```

use sha2::{Digest as _, Sha256};

use super::{
    key::{ContentDigest, LayerKey},
    step::Step,
};
use crate::{id::TemplateId, size::MachineSize};

/// Begins every chain. Another number here makes every key a new one.
const CHAIN: &[u8] = b"template layers, 1";

/// A `COPY` whose content nobody has hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step} copies from a context, and no digest of what it copies was given")]
pub struct MissingDigest {
    /// Which step, from 1.
    pub step: usize,
}

/// The keys of the steps, in order: one for each but `START`, which has no layer. The same base, size
/// and steps give the same keys on every machine.
///
/// Steps that change no disk are links of the chain too, since the steps behind them run otherwise. A
/// step's time limit is none: it changes nothing about a result that is there.
///
/// # Errors
/// If `copies` has fewer digests than the steps have `COPY`.
pub fn layers(
    base: TemplateId,
    size: MachineSize,
    steps: &[Step],
    copies: &[ContentDigest],
) -> Result<Vec<LayerKey>, MissingDigest> {
    let mut first = Sha256::new();
    first.update(CHAIN);
    first.update(base.uuid().as_bytes());
    for number in [size.vcpus, size.memory_mb, size.disk_size_mb] {
        first.update(number.to_be_bytes());
    }
    let mut last: [u8; 32] = first.finalize().into();
    let mut copies = copies.iter();
    let mut keys = Vec::with_capacity(steps.len());
    for (index, step) in steps.iter().enumerate() {
        if matches!(step, Step::Start { .. }) {
            continue;
        }
        let mut link = Link::after(last, step.instruction());
        match step {
            Step::Run { command, .. } | Step::Start { command } => link.text(command),
            Step::Env { vars } => {
                for (name, value) in vars {
                    link.text(name);
                    link.text(value);
                }
            }
            Step::Workdir { path } => link.text(path),
            Step::User { name } => link.text(name),
            Step::Copy {
                sources,
                dest,
                mode,
                owner,
            } => {
                let content = copies.next().ok_or(MissingDigest { step: index + 1 })?;
                link.0.update(content.as_bytes());
                link.text(dest);
                link.text(&mode.map_or_else(String::new, |mode| mode.to_string()));
                link.text(owner.as_deref().unwrap_or_default());
                for source in sources {
                    link.text(source);
                }
            }
        }
        last = link.0.finalize().into();
        keys.push(LayerKey::from(last));
    }
    Ok(keys)
}

/// Hashes one link. Every text has its length before it, so that no two lists of texts are the same
/// bytes.
struct Link(Sha256);

impl Link {
    fn after(last: [u8; 32], instruction: &str) -> Self {
        let mut link = Self(Sha256::new());
        link.0.update(last);
        link.text(instruction);
        link
    }

    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text);
    }
}
