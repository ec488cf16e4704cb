//! R28, R42: recipes and build contexts, as clients upload them. Each is refused with its place, or
//! read; what was read keeps to its bounds, is written and read back as it was, and puts nothing
//! outside of where it should go.
//!
//! The first byte says what the rest is: `l` entries of a list, with `0x1e` between them; `c` sources,
//! a line each, `0x1e`, and a context; anything else is the first byte of a text.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sandbox_core::build::{
    Recipe, Step,
    context::{CONTEXT_ENTRIES_MAX, Context, Destination, Put},
    recipe::{
        ContentDigest, ENV_BYTES_MAX, RECIPE_BYTES_MAX, RecipeError, STEPS_MAX, layers,
        scope_before,
    },
};
use sandbox_core::{size::MachineSize, template::MINIMAL_TEMPLATE_ID};

fuzz_target!(|data: &[u8]| {
    match data {
        [b'l', rest @ ..] => {
            let Ok(text) = std::str::from_utf8(rest) else {
                return;
            };
            let entries: Vec<&str> = text.split('\x1e').collect();
            match Recipe::parse_list(&entries) {
                Ok(recipe) => is_whole(&recipe),
                Err(error) => {
                    let entry = error.entry.expect("a list has entries");
                    has_a_place(&error, entries[entry - 1]);
                }
            }
        }
        [b'c', rest @ ..] => context(rest),
        text => {
            let Ok(text) = std::str::from_utf8(text) else {
                return;
            };
            match Recipe::parse_text(text) {
                Ok(read) => {
                    is_whole(&read.recipe);
                    let check = read.healthcheck;
                    assert!(check.is_none_or(|check| !check.cmd.is_empty()));
                }
                Err(error) => {
                    assert_eq!(error.entry, None);
                    has_a_place(&error, text.strip_prefix('\u{feff}').unwrap_or(text));
                }
            }
        }
    }
});

fn has_a_place(error: &RecipeError, source: &str) {
    let line = source
        .split('\n')
        .nth(error.line as usize - 1)
        .expect("the line is there");
    // One behind the last character is where something is missing.
    assert!(
        (1..=line.chars().count() + 1).contains(&(error.column as usize)),
        "{error}"
    );
    let explained = error.explained();
    assert_eq!(explained.lines().count(), 3, "{explained}");
    assert!(explained.len() < 2048);
}

fn is_whole(recipe: &Recipe) {
    let steps = &recipe.steps;
    assert!(steps.len() <= STEPS_MAX);
    let texts: Vec<String> = steps.iter().map(Step::text).collect();
    // What is quoted can be a little longer than it was.
    if texts.iter().map(String::len).sum::<usize>() <= RECIPE_BYTES_MAX {
        assert_eq!(Recipe::parse_list(&texts).as_ref(), Ok(recipe));
    }
    for (index, step) in steps.iter().enumerate() {
        assert!(!step.to_string().contains(char::is_control));
        let last = index + 1 == steps.len();
        assert!(last || !matches!(step, Step::Start { .. }));
    }
    let scope = scope_before(steps, steps.len());
    assert!(scope.workdir.starts_with('/') && !scope.workdir.contains("/../"));
    let bytes: usize = scope
        .env
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    assert!(bytes <= ENV_BYTES_MAX);

    let copies = vec![ContentDigest::from([7; 32]); steps.len()];
    let keys = layers(MINIMAL_TEMPLATE_ID, MachineSize::default(), steps, &copies)
        .expect("each has a digest");
    let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), keys.len());
}

fn context(data: &[u8]) {
    let split = data.iter().position(|byte| *byte == 0x1e);
    let (sources, archive) = data.split_at(split.unwrap_or(0));
    let archive = archive.strip_prefix(&[0x1e]).unwrap_or(archive);
    let context = match Context::read(Bytes::copy_from_slice(archive)) {
        Ok(context) => context,
        Err(error) => {
            assert!(error.to_string().len() < 1024, "{error}");
            return;
        }
    };
    assert!(context.len() <= CONTEXT_ENTRIES_MAX);
    let Ok(sources) = std::str::from_utf8(sources) else {
        return;
    };
    let sources: Vec<&str> = sources.lines().collect();
    for dest in ["in/", "/", "name"] {
        let to = Destination::new(dest, "/work");
        match context.select(&sources, &to, None) {
            Ok(puts) => {
                assert!(context.digest(&sources).is_ok());
                for put in puts {
                    is_inside(&put, &to);
                }
            }
            Err(error) => assert!(error.to_string().len() < 1024, "{error}"),
        }
    }
}

fn is_inside(put: &Put, to: &Destination) {
    let below = put.path().strip_prefix(&to.path).expect("it is inside");
    assert!(below.is_empty() || below.starts_with('/') || to.path == "/");
    assert!(
        put.path()
            .split('/')
            .all(|part| part != "." && part != "..")
    );
}
