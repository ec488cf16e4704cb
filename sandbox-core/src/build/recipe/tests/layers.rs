//! Keys of layers.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::list;
use crate::{
    build::recipe::{ContentDigest, LayerKey, MissingDigest, Step, layers},
    id::TemplateId,
    size::MachineSize,
    template::MINIMAL_TEMPLATE_ID,
};

fn keys(steps: &[Step]) -> Vec<LayerKey> {
    let copies = [ContentDigest::from([1; 32]), ContentDigest::from([2; 32])];
    layers(MINIMAL_TEMPLATE_ID, MachineSize::default(), steps, &copies).unwrap()
}

#[test]
fn a_key_depends_on_all_before_it_and_on_nothing_behind_it() {
    let steps = [
        "ENV A=1",
        "make",
        "COPY a /x",
        "USER app",
        "make test",
        "START x",
    ];
    let before = keys(&list(&steps));
    assert_eq!(before.len(), 5, "START has no layer");
    for (index, other) in [
        (0, "ENV A=2"),
        (0, "ENV B=1"),
        (1, "make -j2"),
        (2, "COPY b /x"),
        (2, "COPY --chmod=755 a /x"),
        (2, "COPY --chown=app a /x"),
        (2, "COPY a /y"),
        (3, "USER root"),
        (3, "WORKDIR app"),
    ] {
        let mut changed = steps;
        changed[index] = other;
        let after = keys(&list(&changed));
        assert_eq!(before[..index], after[..index], "{other}");
        let common: BTreeSet<_> = before[index..]
            .iter()
            .filter(|key| after.contains(key))
            .collect();
        assert!(common.is_empty(), "{other}");
    }
}

#[test]
fn a_key_depends_on_base_size_and_content_and_not_on_a_time_limit() {
    let steps = list(&["make", "COPY a /x"]);
    let size = MachineSize::default();
    let digest = ContentDigest::from([1; 32]);
    let of = |base, size, steps: &[Step], digest| layers(base, size, steps, &[digest]).unwrap();
    let first = of(MINIMAL_TEMPLATE_ID, size, &steps, digest);

    let base = TemplateId::from_uuid(uuid::Uuid::from_u128(2));
    assert_ne!(of(base, size, &steps, digest)[0], first[0]);
    let larger = MachineSize {
        disk_size_mb: size.disk_size_mb + 1,
        ..size
    };
    assert_ne!(of(MINIMAL_TEMPLATE_ID, larger, &steps, digest)[0], first[0]);
    let other = of(
        MINIMAL_TEMPLATE_ID,
        size,
        &steps,
        ContentDigest::from([2; 32]),
    );
    assert_eq!(other[0], first[0]);
    assert_ne!(other[1], first[1]);
    let limited = list(&["RUN --timeout=9 make", "COPY a /x"]);
    assert_eq!(of(MINIMAL_TEMPLATE_ID, size, &limited, digest), first);
    assert_eq!(
        layers(MINIMAL_TEMPLATE_ID, size, &steps, &[]),
        Err(MissingDigest { step: 2 })
    );
}

/// Stored layers are found by these: a release that changes them by accident builds everything anew.
#[test]
fn keys_are_the_same_from_release_to_release() {
    let steps = list(&["apt-get update", "ENV A=1", "COPY --chmod=755 a b /x/"]);
    let keys: Vec<_> = keys(&steps).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(keys.join("\n"));
}

#[test]
fn texts_that_are_cut_otherwise_are_other_steps() {
    let of = |vars: &[(&str, &str)]| keys(&[super::env(vars)])[0];
    assert_ne!(of(&[("a", "bc")]), of(&[("ab", "c")]));
    assert_ne!(of(&[("a", "b"), ("c", "d")]), of(&[("a", "bcd")]));
}

proptest! {
    #[test]
    fn a_key_is_read_back_as_it_was_written(hash: [u8; 32]) {
        let key = LayerKey::from(hash);
        prop_assert_eq!(key.to_string().parse(), Ok(key));
        let json = serde_json::to_string(&key).unwrap();
        prop_assert_eq!(serde_json::from_str::<LayerKey>(&json).unwrap(), key);
    }

    #[test]
    fn what_is_read_as_a_key_is_written_the_same(text in "[0-9a-fA-F]{62,66}") {
        if let Ok(key) = text.parse::<LayerKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
