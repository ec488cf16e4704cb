//! Texts: the subset of a Dockerfile.

use super::{lines, run, text};
use crate::build::recipe::{HealthcheckText, Recipe};

#[test]
fn r28_a_dockerfile_of_one_stage_is_a_recipe() {
    let read = text(
        r#"# syntax=docker/dockerfile:1
ARG BASE=minimal
FROM ${BASE} AS app

LABEL maintainer="someone"
env PYTHONUNBUFFERED=1 \
    # a comment between
    LANG=C.UTF-8

WORKDIR /srv
RUN --mount=type=cache,target=/root/.cache python3 -m venv /venv && \
    /venv/bin/pip install flask
COPY --chown=app:app *.py config/ ./
USER app
EXPOSE 8000
VOLUME /data
CMD ["/venv/bin/python", "app.py"]
HEALTHCHECK --interval=1s --timeout=2s --start-period=1m --retries=3 CMD curl -f http://localhost:8000/
"#,
    );
    assert_eq!(read.base.unwrap().as_str(), "minimal");
    let steps: Vec<_> = read.recipe.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "ENV PYTHONUNBUFFERED=1 LANG=C.UTF-8",
            "WORKDIR /srv",
            "python3 -m venv /venv &&     /venv/bin/pip install flask",
            "COPY --chown=app:app *.py config/ ./",
            "USER app",
            "START /venv/bin/python app.py",
        ]
    );
    let expected = HealthcheckText {
        cmd: "curl -f http://localhost:8000/".to_owned(),
        interval_sec: Some(1),
        timeout_sec: Some(2),
        start_period_sec: Some(60),
        retries: Some(3),
    };
    assert_eq!(read.healthcheck, Some(expected));
}

#[test]
fn a_text_without_a_base_or_steps_is_one_too() {
    for source in ["", "\n\n# nothing\n", "\u{feff}"] {
        let read = text(source);
        assert_eq!(
            (read.base, read.recipe, read.healthcheck),
            (None, Recipe::default(), None)
        );
    }
    assert_eq!(text("FROM minimal").base.unwrap().as_str(), "minimal");
    assert_eq!(lines("RUN a"), ["a"]);
}

#[test]
fn lines_go_on_behind_a_backslash_and_through_comments_and_empty_lines() {
    assert_eq!(lines("RUN a \\\n\n  # why\n  b \\  \n c"), ["a   b  c"]);
    assert_eq!(lines("RUN a\\\r\nb\r\nRUN c\r\n"), ["ab", "c"]);
    assert_eq!(lines("RUN a \\\\\nRUN b \\"), ["a \\\\", "b"]);
    assert_eq!(
        lines("# escape=`\nRUN a `\n b\nENV A=x`\"y P=c:\\d"),
        ["a  b", "ENV A='x\"y' P='c:\\d'"]
    );
    // Behind the first other line, a directive is a comment like others.
    assert_eq!(lines("\n# escape=`\nRUN a \\\n b"), ["a  b"]);
}

#[test]
fn cmd_and_entrypoint_make_one_start_at_the_end() {
    for (source, start) in [
        ("CMD a b\nRUN c", "START a b"),
        ("CMD a\nCMD [\"b\", \"c d\"]", "START b 'c d'"),
        ("ENTRYPOINT [\"a\"]\nCMD [\"b\"]", "START a b"),
        ("CMD [\"b\"]\nENTRYPOINT [\"a\", \"-x\"]", "START a -x b"),
        ("ENTRYPOINT [\"a\"]\nCMD b c", "START a /bin/sh -c 'b c'"),
        ("ENTRYPOINT a\nCMD [\"b\"]", "START a"),
        ("ENTRYPOINT [\"a\"]\nENTRYPOINT []\nCMD b", "START b"),
        ("START a\nEXPOSE 1", "START a"),
    ] {
        assert_eq!(lines(source).last().unwrap(), start, "{source}");
    }
    assert!(lines("CMD a\nCMD []").is_empty());
}

#[test]
fn another_shell_takes_the_lines_behind_it() {
    let source = r#"RUN a
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN it's | b
RUN ["c"]
CMD d
SHELL ["/bin/sh", "-c"]
RUN e"#;
    assert_eq!(
        lines(source),
        [
            "a",
            r"/bin/bash -o pipefail -c 'it'\''s | b'",
            "c",
            "e",
            "START /bin/bash -o pipefail -c d",
        ]
    );
}

#[test]
fn arguments_are_their_defaults() {
    let base = |source: &str| text(source).base.unwrap().as_str().to_owned();
    assert_eq!(base("ARG V=12\nARG N=debian-$V\nFROM $N"), "debian-12");
    assert_eq!(lines("ARG V=1\nFROM a\nARG V\nRUN x"), ["ENV V=1", "x"]);
    assert_eq!(
        lines("ARG V=1\nFROM a\nARG V=2\nARG V=3"),
        ["ENV V=2", "ENV V=3"]
    );
    assert_eq!(lines("FROM a\nENV V=1\nARG V=2\nARG V"), ["ENV V=1"]);
    assert_eq!(
        lines("FROM a\nARG V=0\nENV V=1\nARG V=2"),
        ["ENV V=0", "ENV V=1"]
    );
    assert_eq!(lines("ARG V=1\nWORKDIR /$V"), ["ENV V=1", "WORKDIR /1"]);
}

#[test]
fn add_is_copy_where_it_would_do_the_same() {
    assert_eq!(lines("ADD --chmod=755 a b/"), ["COPY --chmod=755 a b/"]);
}

#[test]
fn shifts_and_here_strings_are_no_here_documents() {
    for command in [
        "echo $((1 << n))",
        "cat <<< word",
        "echo '<<EOF' \"<<EOF\"",
        "a <<1",
    ] {
        let recipe = text(&format!("RUN {command}")).recipe;
        assert_eq!(recipe.steps, [run(command)]);
    }
}

#[test]
fn the_last_healthcheck_counts() {
    let check = |source: &str| text(source).healthcheck;
    assert_eq!(check("HEALTHCHECK CMD a\nHEALTHCHECK NONE"), None);
    let read =
        check("healthcheck none\nHEALTHCHECK --start-interval=1s cmd [\"a\", \"b c\"]").unwrap();
    assert_eq!(read.cmd, "a 'b c'");
    assert_eq!((read.interval_sec, read.retries), (None, None));
}
