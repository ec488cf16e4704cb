mod errors;
mod identity;
mod layers;
mod steps;
mod text;

use super::{Recipe, RecipeText, Step};

fn list(entries: &[&str]) -> Vec<Step> {
    match Recipe::parse_list(entries) {
        Ok(recipe) => recipe.steps,
        Err(error) => panic!("{}", error.explained()),
    }
}

/// The one step that an entry is read as.
fn one(entry: &str) -> Step {
    let mut steps = list(&[entry]);
    assert_eq!(steps.len(), 1);
    steps.remove(0)
}

fn text(text: &str) -> RecipeText {
    match Recipe::parse_text(text) {
        Ok(text) => text,
        Err(error) => panic!("{}", error.explained()),
    }
}

/// The steps of a text, as lines.
fn lines(source: &str) -> Vec<String> {
    let steps = text(source).recipe.steps;
    steps.iter().map(Step::text).collect()
}

fn run(command: &str) -> Step {
    Step::Run {
        command: command.to_owned(),
        timeout_sec: None,
    }
}

fn env(vars: &[(&str, &str)]) -> Step {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Step::Env {
        vars: vars.iter().map(owned).collect(),
    }
}

fn workdir(path: &str) -> Step {
    let path = path.to_owned();
    Step::Workdir { path }
}

fn copy(sources: &[&str], dest: &str) -> Step {
    Step::Copy {
        sources: sources.iter().map(|source| (*source).to_owned()).collect(),
        dest: dest.to_owned(),
        mode: None,
        owner: None,
    }
}
