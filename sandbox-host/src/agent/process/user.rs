//! Users of the guest, read from its own `/etc/passwd` and `/etc/group` at each use.

use std::fs;

use sandbox_core::guest::GuestError;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
    /// Every group, the first one included.
    pub(crate) groups: Vec<u32>,
}

/// Looks a user up by name or number. A number that is not listed is accepted as a user of that
/// number, group of that number, whose home is `/`.
pub(crate) fn look_up(wanted: &str) -> Result<User, GuestError> {
    let read = |path| {
        fs::read(path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    find(wanted, &read("/etc/passwd"), || read("/etc/group")).ok_or_else(|| {
        GuestError::NoSuchUser {
            user: wanted.chars().take(64).collect(),
        }
    })
}

fn find(wanted: &str, passwd: &str, group: impl FnOnce() -> String) -> Option<User> {
    let number: Option<u32> = wanted
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| wanted.parse().ok())
        .flatten();
    let listed = |matches: &dyn Fn(&User) -> bool| {
        passwd
            .lines()
            .filter_map(parse_passwd)
            .find(|user| matches(user))
    };
    let by_name = listed(&|user| user.name == wanted);
    let mut user = by_name
        .or_else(|| number.and_then(|uid| listed(&|user| user.uid == uid)))
        .or_else(|| {
            // The highest number means "no change" to the kernel.
            let uid = number.filter(|uid| *uid != u32::MAX)?;
            Some(User {
                name: if uid == 0 {
                    "root".into()
                } else {
                    uid.to_string()
                },
                uid,
                gid: uid,
                home: if uid == 0 { "/root" } else { "/" }.into(),
                shell: "/bin/sh".into(),
                groups: vec![uid],
            })
        })
        .or_else(|| {
            (wanted == "root").then(|| User {
                name: "root".into(),
                uid: 0,
                gid: 0,
                home: "/root".into(),
                shell: "/bin/sh".into(),
                groups: vec![0],
            })
        })?;
    for line in group().lines() {
        let mut fields = line.splitn(4, ':');
        let (Some(_), Some(_), Some(gid), Some(members)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if let Ok(gid) = gid.parse()
            && members.split(',').any(|member| member.trim() == user.name)
            && !user.groups.contains(&gid)
        {
            user.groups.push(gid);
        }
    }
    Some(user)
}

fn parse_passwd(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields.as_slice() else {
        return None;
    };
    let gid = gid.parse().ok()?;
    let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
    Some(User {
        name: (*name).to_owned(),
        uid: uid.parse().ok()?,
        gid,
        home: or(home, "/"),
        shell: or(shell.trim_end(), "/bin/sh"),
        groups: vec![gid],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken line\n\
        web:x:33:33::/var/www:/usr/sbin/nologin\nempty:x:40:41:::\n77:x:78:78::/odd:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:50:empty,web\nmore:x:51:web\nbad\n";

    fn found(wanted: &str) -> Option<User> {
        find(wanted, PASSWD, || GROUP.to_owned())
    }

    #[test]
    fn r5_users_are_found_by_name_and_number_with_their_groups() {
        let web = found("web").unwrap();
        assert_eq!((web.uid, web.gid, web.home.as_str()), (33, 33, "/var/www"));
        assert_eq!(web.groups, [33, 50, 51]);
        assert_eq!(found("33"), Some(web));
        assert_eq!(found("empty").unwrap().shell, "/bin/sh");
        assert_eq!(found("root").unwrap().shell, "/bin/bash");
    }

    #[test]
    fn a_name_of_digits_wins_over_the_number() {
        assert_eq!(found("77").unwrap().uid, 78);
    }

    #[test]
    fn an_unlisted_number_is_a_user_and_an_unlisted_name_is_not() {
        let user = found("1234").unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_str()), (1234, 1234, "/"));
        for wanted in ["nobody-here", "", "-1", "4294967295", "99999999999"] {
            assert_eq!(found(wanted), None, "{wanted}");
        }
    }

    #[test]
    fn root_is_known_without_any_file() {
        assert_eq!(find("root", "", String::new).unwrap().home, "/root");
    }
}
