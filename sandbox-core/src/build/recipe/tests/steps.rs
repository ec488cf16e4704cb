//! Instructions as lists have them.

use super::{copy, env, list, one, run, workdir};
use crate::{
    build::recipe::{Recipe, Scope, Step, scope_before},
    process::DEFAULT_PATH,
};

#[test]
fn r28_a_list_of_shell_commands_is_a_recipe() {
    let entries = [
        "apt-get update",
        "  echo \"$HOME\" | tee x\n",
        "a && \\\n  b",
    ];
    let expected = ["apt-get update", "echo \"$HOME\" | tee x", "a && \\\n  b"].map(run);
    assert_eq!(list(&entries), expected);
    assert!(list(&[]).is_empty());
}

#[test]
fn a_command_is_an_instruction_only_where_its_first_word_is_one_in_capitals() {
    for command in [
        "run x",
        "Env A=1",
        "RUNNER=1 x",
        "USER=me x",
        "FROM x",
        "./RUN x",
        "CMD x",
    ] {
        assert_eq!(one(command), run(command));
    }
    assert_eq!(one("RUN x"), run("x"));
    assert_eq!(one("RUN\tRUN x"), run("RUN x"));
}

#[test]
fn a_run_has_a_time_limit_in_each_spelling() {
    for (spelling, seconds) in [
        ("--timeout=30", 30),
        ("--timeout 30", 30),
        ("--timeout=30s", 30),
        ("--timeout 5m", 300),
        ("--timeout=1h1m1s", 3661),
        ("--timeout=2000ms", 2),
        ("\\\n  --timeout=86400", 86_400),
    ] {
        let expected = Step::Run {
            command: "make  all".to_owned(),
            timeout_sec: Some(seconds),
        };
        assert_eq!(
            one(&format!("RUN {spelling}  make  all")),
            expected,
            "{spelling}"
        );
    }
}

#[test]
fn an_array_becomes_a_shell_line_that_means_the_same() {
    assert_eq!(
        one(r#"RUN ["echo", "it's", "$HOME", ""]"#),
        run(r"echo 'it'\''s' '$HOME' ''")
    );
    let command = "python3 -m http.server 80".to_owned();
    let array = r#"START ["python3", "-m", "http.server", "80"]"#;
    assert_eq!(one(array), Step::Start { command });
    assert_eq!(
        one("RUN [ -f /x ] || touch /x"),
        run("[ -f /x ] || touch /x")
    );
    assert_eq!(one(r#"RUN -- ["a"]"#), run(r#"["a"]"#));
}

#[test]
fn an_env_takes_pairs_or_one_name_and_the_rest() {
    assert_eq!(
        one(r#"ENV A=1 B="two words" C='$x' D=a\ b E= F="a\"b\\c\d" G='it'"'"s"#),
        env(&[
            ("A", "1"),
            ("B", "two words"),
            ("C", "$x"),
            ("D", "a b"),
            ("E", ""),
            ("F", r#"a"b\c\d"#),
            ("G", "it's"),
        ])
    );
    assert_eq!(
        one("ENV NAME the whole rest"),
        env(&[("NAME", "the whole rest")])
    );
    assert_eq!(one("ENV A=1 \\\n  B=2"), env(&[("A", "1"), ("B", "2")]));
}

#[test]
fn variables_are_replaced_as_a_shell_would() {
    let define = "ENV A=one EMPTY=";
    for (value, expected) in [
        ("$A", "one"),
        ("x${A}y", "xoney"),
        ("\"$A two\"", "one two"),
        ("'$A'", "$A"),
        ("\\$A", "$A"),
        ("\"\\$A\"", "$A"),
        ("${A:-no}", "one"),
        ("${EMPTY:-yes}", "yes"),
        ("${EMPTY-no}", ""),
        ("${NONE-$A}", "one"),
        ("${NONE:-${NONE2:-deep}}", "deep"),
        ("${NONE:-\"two words\"}", "two words"),
        ("${A:+set}", "set"),
        ("${EMPTY:+set}", ""),
        ("${NONE+$UNDEFINED}", ""),
        ("${A:-$UNDEFINED}", "one"),
        ("${A:?must}", "one"),
        ("$", "$"),
        ("$1", "$1"),
        ("a$", "a$"),
    ] {
        let steps = list(&[define, &format!("ENV X={value}")]);
        assert_eq!(steps[1], env(&[("X", expected)]), "{value}");
    }
    // Within one instruction, a variable is still what it was before it.
    let steps = list(&["ENV A=old", "ENV A=new B=$A"]);
    assert_eq!(steps[1], env(&[("A", "new"), ("B", "old")]));
    assert_eq!(
        list(&[define, "WORKDIR /srv/$A/x y"])[1],
        workdir("/srv/one/x y")
    );
    assert_eq!(
        list(&[define, "COPY $A.py /x/"])[1],
        copy(&["one.py"], "/x/")
    );
    assert_eq!(
        list(&[define, r#"COPY ["$A b", "/\\$A"]"#])[1],
        copy(&["one b"], "/$A")
    );
    assert_eq!(one("RUN echo $UNDEFINED"), run("echo $UNDEFINED"));
}

#[test]
fn a_path_can_be_prepended_to_the_one_that_processes_have() {
    let value = format!("/venv/bin:{DEFAULT_PATH}");
    assert_eq!(one("ENV PATH=/venv/bin:$PATH"), env(&[("PATH", &value)]));
}

#[test]
fn a_copy_takes_names_with_blanks_modes_and_owners() {
    assert_eq!(
        one("COPY a 'b c' d\\ e /x/"),
        copy(&["a", "b c", "d e"], "/x/")
    );
    assert_eq!(one(r#"COPY ["a b", "c", "."]"#), copy(&["a b", "c"], "."));
    assert_eq!(one("COPY [ab].txt /x"), copy(&["[ab].txt"], "/x"));
    let expected = Step::Copy {
        sources: vec!["a".to_owned()],
        dest: "/x".to_owned(),
        mode: Some(0o4755),
        owner: Some("app:1000".to_owned()),
    };
    assert_eq!(
        one("COPY --chown=app:1000 --chmod 4755 --link a /x"),
        expected
    );
}

#[test]
fn a_scope_is_what_the_steps_before_have_set() {
    let steps = list(&[
        "ENV A=1 B=1",
        "WORKDIR srv",
        "USER app",
        "id",
        "ENV B=2",
        "WORKDIR sub/./../x",
        "WORKDIR /",
        "WORKDIR ../..",
    ]);
    assert_eq!(scope_before(&steps, 0), Scope::default());
    let scope = scope_before(&steps, 3);
    assert_eq!(scope.workdir, "/srv");
    assert_eq!(scope.user.as_deref(), Some("app"));
    let scope = scope_before(&steps, 6);
    assert_eq!(scope.workdir, "/srv/x");
    let env: Vec<_> = scope
        .env
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(env, [("A", "1"), ("B", "2")]);
    assert_eq!(scope_before(&steps, 99).workdir, "/");
}

#[test]
fn a_log_shows_a_step_in_one_line() {
    assert_eq!(one("a\n\tb \u{1b}[31m").to_string(), r"a\n\tb \u{1b}[31m");
    assert_eq!(one("RUN --timeout=1m x").to_string(), "RUN --timeout=60 x");
}

#[test]
fn stored_recipes_are_plain_json() {
    let steps = list(&[
        "ENV A=1",
        "RUN --timeout=2 x",
        "COPY --chmod=600 a /b",
        "START y",
    ]);
    let recipe = Recipe { steps };
    let json = serde_json::to_string(&recipe).unwrap();
    assert_eq!(serde_json::from_str::<Recipe>(&json).unwrap(), recipe);
    let bare =
        r#"{"steps":[{"step":"run","command":"x"},{"step":"copy","sources":["a"],"dest":"/"}]}"#;
    let expected = vec![run("x"), copy(&["a"], "/")];
    assert_eq!(
        serde_json::from_str::<Recipe>(bare).unwrap().steps,
        expected
    );
}
