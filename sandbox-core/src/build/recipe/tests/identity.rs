//! What holds of all recipes.

use proptest::prelude::*;

use crate::build::recipe::{Recipe, Step};

/// Words with all that means something to a reader of words.
fn word() -> impl Strategy<Value = String> {
    "[a-z A-Z0-9$'\"\\\\{}=:\\-\\[\\]*?\n\t#`<~ä]{1,12}"
}

fn path() -> impl Strategy<Value = String> {
    word().prop_filter("leads out", |path| {
        !path.split('/').any(|part| part == "..")
    })
}

fn command() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "", "RUN ", "ENV ", "-- ", "--x ", "[\"a\"]", "[ ", "START\n",
    ]);
    (odd, word()).prop_filter_map("blank", |(odd, word)| {
        let blank = |c: char| c.is_ascii_whitespace();
        let command = format!("{odd}{word}").trim_matches(blank).to_owned();
        (!command.is_empty()).then_some(command)
    })
}

fn step() -> impl Strategy<Value = Step> {
    let vars = prop::collection::vec(("[A-Za-z_.-][A-Za-z0-9_.-]{0,8}", word()), 1..4);
    let value = prop_oneof![Just(String::new()), word()];
    let copy = (
        prop::collection::vec(path(), 1..4),
        path(),
        prop::option::of(prop_oneof![0..=0o77_u32, 0..=0o7777_u32]),
        prop::option::of("[a-z0-9][a-z$'\"0-9]{0,5}(:[a-z0-9]{1,5})?"),
    );
    prop_oneof![
        (command(), prop::option::of(1..=86_400_u32)).prop_map(|(command, timeout_sec)| {
            Step::Run {
                command,
                timeout_sec,
            }
        }),
        (vars, value).prop_map(|(mut vars, last)| {
            vars.push(("LAST".to_owned(), last));
            Step::Env { vars }
        }),
        path().prop_map(|path| Step::Workdir { path }),
        "[a-z_$'\"\\\\-]{1,8}".prop_map(|name| Step::User { name }),
        copy.prop_map(|(sources, dest, mode, owner)| Step::Copy {
            sources,
            dest: format!("{dest}/"),
            mode,
            owner,
        }),
    ]
}

/// Text in which instructions and what means something to them are frequent.
fn soup() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        prop::sample::select(vec![
            "RUN ",
            "ENV ",
            "COPY ",
            "USER ",
            "WORKDIR ",
            "START ",
            "FROM a\n",
            "ARG ",
            "CMD ",
            "ENTRYPOINT ",
            "SHELL ",
            "HEALTHCHECK ",
            "ADD ",
            "--timeout=",
            "--chmod=",
            "A=",
            "$A",
            "${A",
            ":-",
            "}",
            "\"",
            "'",
            "\\",
            "\n",
            "\\\n",
            "[\"",
            "\", \"",
            "\"]",
            " ",
            "/x/",
            "# escape=`\n",
            "#",
            "<<EOF",
            "((",
            "\0",
            "\u{feff}",
            "ä",
            "1s",
            "--",
            "CMD ",
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    prop::collection::vec(token, 0..30).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn r28_a_recipe_written_as_a_list_is_read_back_the_same(
        mut steps in prop::collection::vec(step(), 0..6),
        start in prop::option::of(command()),
    ) {
        steps.extend(start.map(|command| Step::Start { command }));
        let texts: Vec<_> = steps.iter().map(Step::text).collect();
        let read = Recipe::parse_list(&texts);
        prop_assert_eq!(read, Ok(Recipe { steps }), "{:#?}", texts);
    }

    #[test]
    fn r42_any_text_is_read_or_refused_in_its_place(text in soup()) {
        match Recipe::parse_text(&text) {
            Ok(read) => {
                let texts: Vec<_> = read.recipe.steps.iter().map(Step::text).collect();
                prop_assert_eq!(Recipe::parse_list(&texts), Ok(read.recipe));
            }
            Err(error) => {
                let source = text.strip_prefix('\u{feff}').unwrap_or(&text);
                let line = source.split('\n').nth(error.line as usize - 1).unwrap();
                prop_assert!(error.column as usize <= line.chars().count() + 1);
                prop_assert_eq!(error.explained().lines().count(), 3);
            }
        }
    }

    #[test]
    fn r42_any_list_is_read_or_refused_in_its_place(entries in prop::collection::vec(soup(), 0..4)) {
        match Recipe::parse_list(&entries) {
            Ok(recipe) => {
                let texts: Vec<_> = recipe.steps.iter().map(Step::text).collect();
                prop_assert_eq!(Recipe::parse_list(&texts), Ok(recipe));
            }
            Err(error) => {
                let entry = &entries[error.entry.unwrap() - 1];
                let line = entry.split('\n').nth(error.line as usize - 1).unwrap();
                prop_assert!(error.column as usize <= line.chars().count() + 1);
            }
        }
    }
}
