//! What is wrong, where, and what to do: as people see it.

use std::fmt::Write;

use crate::build::recipe::{
    ENV_BYTES_MAX, RECIPE_BYTES_MAX, Recipe, RecipeProblem, SOURCES_MAX, STEP_BYTES_MAX, STEPS_MAX,
};

#[test]
fn r42_errors_of_texts_point_at_the_place_and_say_what_to_do() {
    let mut shown = String::new();
    for source in [
        "FROM minimal\nRUM apt-get update",
        "RUN",
        "RUN --timeout",
        "RUN --timeout=",
        "RUN --timeout=0 x",
        "RUN --timeout=1.5s x",
        "RUN --timeout soon x",
        "RUN --privileged x",
        "RUN --mount=type=secret,id=a x",
        "RUN [\"a\", 'b']",
        "RUN [\"a\", 1]",
        "RUN []",
        "ENV",
        "ENV NAME",
        "ENV A=1 B",
        "ENV =1",
        "ENV A=\"open",
        "ENV A=1 \\\n    B='open",
        "ENV A=$HOME/x",
        "ENV A=${B",
        "ENV A=${:-x}",
        "ENV A=${B!x}",
        "ENV A=${B:?is the port}",
        "WORKDIR",
        "WORKDIR \"\"",
        "USER app:app",
        "USER two words",
        "COPY a",
        "COPY a b /dest",
        "COPY ../a /x",
        "COPY --from=build a /x",
        "COPY --chmod=u+x a /x",
        "COPY --chown=-R a /x",
        "COPY --parents a /x",
        "COPY <<EOF /x\nhello\nEOF",
        "RUN cat > /x <<-'END'",
        "START a\nSTART b",
        "START a\nRUN b",
        "START a\nCMD b",
        "START --now x",
        "RUN a\nFROM minimal",
        "FROM a\nFROM b",
        "FROM python:3.12",
        "FROM",
        "FROM --platform=linux/amd64 a",
        "FROM a b",
        "ARG VERSION",
        "ADD https://example.org/x /x",
        "ADD root.tar.gz /",
        "ONBUILD RUN x",
        "SHELL bash -c",
        "HEALTHCHECK curl localhost",
        "HEALTHCHECK --retries=0 CMD x",
        "HEALTHCHECK --interval=500ms CMD x",
        "# escape=x\nRUN a",
        "RUN a\0b",
    ] {
        let error = Recipe::parse_text(source).unwrap_err();
        writeln!(shown, "{}\n", error.explained()).unwrap();
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn r42_errors_of_lists_name_the_entry() {
    let mut shown = String::new();
    for entries in [
        vec!["true", "  "],
        vec!["true", "ENV A=1\n    B"],
        vec!["a", "  START x", "\n b"],
        vec!["USER"],
        vec!["x \0"],
    ] {
        let error = Recipe::parse_list(&entries).unwrap_err();
        writeln!(shown, "{}\n", error.explained()).unwrap();
    }
    let long = format!("ENV {} B", "A=1 ".repeat(100));
    let error = Recipe::parse_list(&[long]).unwrap_err();
    writeln!(shown, "{}", error.explained()).unwrap();
    insta::assert_snapshot!(shown);
}

fn problem(entries: &[String]) -> RecipeProblem {
    Recipe::parse_list(entries).unwrap_err().problem
}

#[test]
fn r42_every_bound_holds() {
    let many = vec!["x".to_owned(); STEPS_MAX];
    assert!(Recipe::parse_list(&many).is_ok());
    let more = vec!["x".to_owned(); STEPS_MAX + 1];
    assert_eq!(
        problem(&more),
        RecipeProblem::TooManySteps { max: STEPS_MAX }
    );

    let long = "x".repeat(STEP_BYTES_MAX);
    assert!(Recipe::parse_list(&[&long]).is_ok());
    let max = STEP_BYTES_MAX;
    assert_eq!(
        problem(&[format!("{long}x")]),
        RecipeProblem::StepTooLong { max }
    );

    let max = RECIPE_BYTES_MAX;
    assert_eq!(problem(&vec![long; 5]), RecipeProblem::TooLong { max });
    let text = " ".repeat(RECIPE_BYTES_MAX + 1);
    let error = Recipe::parse_text(&text).unwrap_err();
    assert_eq!(error.problem, RecipeProblem::TooLong { max });

    let sources = format!("COPY {} /x/", "a ".repeat(SOURCES_MAX + 1));
    let max = SOURCES_MAX;
    assert_eq!(problem(&[sources]), RecipeProblem::TooManySources { max });
}

#[test]
fn r42_variables_that_grow_by_themselves_end_at_a_bound() {
    let mut entries = vec!["ENV A=0123456789abcdef".to_owned()];
    entries.extend(vec!["ENV A=$A$A$A$A$A$A$A$A".to_owned(); 200]);
    let bounds = [
        RecipeProblem::StepTooLong {
            max: STEP_BYTES_MAX,
        },
        RecipeProblem::EnvironmentTooLarge {
            vars_max: 256,
            bytes_max: ENV_BYTES_MAX,
        },
    ];
    assert!(bounds.contains(&problem(&entries)));

    let deep = format!("ENV A={}x{}", "${B:-".repeat(10_000), "}".repeat(10_000));
    assert_eq!(problem(&[deep]), RecipeProblem::BadVariable);
    let deep = format!("RUN {}", "[".repeat(60_000));
    assert!(Recipe::parse_list(&[deep]).is_ok());
}
