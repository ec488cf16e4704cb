//! What `sandboxd` takes from its environment.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::{path::Path, process::Command};

/// Starts it with an address that it can't take, which it finds out after opening its folder.
fn refusal(variables: &[(&str, &Path)], args: &[&Path]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sandboxd"))
        .env_remove("SANDBOX_DATA")
        .env_remove("SANDBOX_DATA_DIR")
        .envs(variables.iter().copied())
        .args(args)
        .args(["--listen", "127.0.0.1:0", "--rpc-listen", "nowhere"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_folder_is_named_by_the_flag_then_one_variable_then_the_other() {
    let parent = tempfile::tempdir().unwrap();
    let at = |name: &str| parent.path().join(name);
    let (flag, one, other) = (at("flag"), at("one"), at("other"));
    let variables = [
        ("SANDBOX_DATA_DIR", other.as_path()),
        ("SANDBOX_DATA", one.as_path()),
    ];
    let cases = [
        (&variables[..0], &[][..], None),
        (&variables[..1], &[], Some(&other)),
        (&variables[..], &[], Some(&one)),
        (
            &variables[..],
            &[Path::new("--data"), flag.as_path()],
            Some(&flag),
        ),
    ];
    for (variables, args, used) in cases {
        let words = refusal(variables, args);
        match used {
            Some(folder) => assert!(folder.join("host").is_dir(), "{folder:?}: {words}"),
            None => assert!(words.contains("--data"), "{words}"),
        }
        let made = [&flag, &one, &other].map(|folder| folder.exists());
        let expected = [&flag, &one, &other].map(|folder| used == Some(folder));
        assert_eq!(made, expected, "{words}");
        if let Some(folder) = used {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}

#[test]
fn trap_31_teams_keys_that_others_may_read_or_that_make_no_sense_stop_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let (folder, keys) = (parent.path().join("data"), parent.path().join("team.keys"));
    let key = "sbk_0123456789abcdef0123456789abcdef";
    std::fs::write(&keys, format!("team-nobody {key}\n")).unwrap();
    let start = || {
        refusal(
            &[("SANDBOX_TEAM_KEYS", &keys)],
            &[Path::new("--data"), &folder],
        )
    };
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o640)).unwrap();
    let words = start();
    assert!(words.contains("chmod 600"), "{words}");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    let words = start();
    assert!(words.contains("line 1") && !words.contains(key), "{words}");
    std::fs::write(
        &keys,
        format!("team-0190163d-8694-739b-aea5-966c26f8ad91 {key}\n"),
    )
    .unwrap();
    let words = start();
    assert!(
        words.contains("nowhere"),
        "it gets as far as the address: {words}"
    );
}

#[test]
fn a_redis_that_is_not_there_stops_the_start_and_its_password_is_not_shown() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let socket = parent.path().join("redis.sock");
    let url = format!("redis+unix://user:s3cret@here{}", socket.display());
    let words = refusal(
        &[("SANDBOX_REDIS_URL", Path::new(&url))],
        &[Path::new("--data"), &folder],
    );
    assert!(words.contains("the queue can't be opened"), "{words}");
    assert!(words.contains(socket.to_str().unwrap()), "{words}");
    assert!(!words.contains("s3cret"), "{words}");
}
