//! What a `.dockerignore` leaves out: pure.
//!
//! A line is a pattern for a path from the folder, or for one of the folders above it: `*` and `?`
//! within a name, `**` for any number of names. `!` before it takes back in what a line above leaves
//! out; the last line that speaks of a path decides. `#` begins a comment line.

use sandbox_core::build::context::name_matches;

/// The lines of a `.dockerignore`.
#[derive(Debug, Default)]
pub(super) struct Ignored {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    takes_back: bool,
    names: Vec<String>,
}

impl Ignored {
    pub(super) fn read(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.filter_map(|line| {
            let line = line.trim();
            let (takes_back, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let mut names: Vec<String> = Vec::new();
            for name in pattern.split('/') {
                match name {
                    "" | "." => {}
                    ".." => drop(names.pop()),
                    name => names.push(name.to_owned()),
                }
            }
            (!names.is_empty()).then_some(Line { takes_back, names })
        });
        Self {
            lines: lines.collect(),
        }
    }

    /// Whether a path, as the names on its way, is left out.
    pub(super) fn leaves_out(&self, path: &[String]) -> bool {
        let mut out = false;
        for line in &self.lines {
            let mut above = 1..=path.len();
            if line.takes_back == out && above.any(|end| matches(&line.names, &path[..end])) {
                out = !line.takes_back;
            }
        }
        out
    }

    /// Whether something below a folder that is left out may be taken back in.
    pub(super) fn takes_back(&self) -> bool {
        self.lines.iter().any(|line| line.takes_back)
    }
}

/// Whether names are like patterns, where `**` stands for any number of names.
fn matches(patterns: &[String], names: &[String]) -> bool {
    // Which places of the pattern the names so far lead to.
    let mut places = vec![false; patterns.len() + 1];
    places[0] = true;
    pass(patterns, &mut places);
    for name in names {
        let mut next = vec![false; patterns.len() + 1];
        for (at, pattern) in patterns.iter().enumerate().filter(|(at, _)| places[*at]) {
            if pattern == "**" {
                next[at] = true;
            } else if name_matches(pattern, name) {
                next[at + 1] = true;
            }
        }
        pass(patterns, &mut next);
        places = next;
    }
    places[patterns.len()]
}

/// A `**` may stand for no name at all.
fn pass(patterns: &[String], places: &mut [bool]) {
    for (at, pattern) in patterns.iter().enumerate() {
        if pattern == "**" && places[at] {
            places[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(text: &str, path: &str) -> bool {
        let names: Vec<String> = path.split('/').map(str::to_owned).collect();
        Ignored::read(text).leaves_out(&names)
    }

    #[test]
    fn patterns_leave_out_what_they_name_and_all_below() {
        for (text, path, out) in [
            ("node_modules", "node_modules", true),
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "app/node_modules", false),
            ("/node_modules/", "node_modules/a", true),
            ("**/node_modules", "app/node_modules/x", true),
            ("**/node_modules", "node_modules", true),
            ("*.log", "a.log", true),
            ("*.log", "logs/a.log", false),
            ("**/*.log", "logs/deep/a.log", true),
            ("src/**", "src/a", true),
            ("src/**/test", "src/test", true),
            ("src/**/test", "src/a/b/test/c", true),
            ("src/**/test", "src/a/b", false),
            ("?.txt", "ab.txt", false),
            ("[ab].txt", "b.txt", true),
            ("# a", "# a", false),
            ("./a/../b", "b", true),
            ("", "a", false),
            ("a b ", "a b", true),
        ] {
            assert_eq!(left_out(text, path), out, "{text} {path}");
        }
    }

    #[test]
    fn the_last_line_that_speaks_of_a_path_decides() {
        let text = "*\n!src\nsrc/secret\n!src/secret/public\n";
        for (path, out) in [
            ("readme", true),
            ("src", false),
            ("src/main", false),
            ("src/secret", true),
            ("src/secret/key", true),
            ("src/secret/public", false),
        ] {
            assert_eq!(left_out(text, path), out, "{path}");
        }
        assert!(Ignored::read(text).takes_back());
        assert!(!Ignored::read("a").takes_back());
    }
}
