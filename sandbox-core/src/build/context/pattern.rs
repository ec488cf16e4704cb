//! Wildcards: `*` for any characters of a name, `?` for one, `[a-z]` and `[^a-z]` for one of a set, `\`
//! before a character that means itself.

/// Whether a part of a source can match other names than itself.
pub(super) fn has_wildcard(part: &str) -> bool {
    part.contains(['*', '?', '[', '\\'])
}

/// Whether a name is like a pattern. A set that is never closed matches nothing.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Behind the last `*`, and where in the name it was tried last. Going back to it alone is enough.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == '*' {
            p += 1;
            star = Some((p, n));
            continue;
        }
        let one = name.get(n).and_then(|c| one(&pattern[p..], *c));
        if p == pattern.len() && n == name.len() {
            return true;
        }
        if let Some(taken) = one {
            p += taken;
            n += 1;
            continue;
        }
        match star {
            Some((behind, tried)) if tried < name.len() => {
                (p, n) = (behind, tried + 1);
                star = Some((behind, tried + 1));
            }
            _ => return false,
        }
    }
}

/// How much of the pattern matches one character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['[', ..] => set(pattern, c),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

fn set(pattern: &[char], c: char) -> Option<usize> {
    let mut at = 1;
    let negated = matches!(pattern.get(at), Some('^' | '!'));
    at += usize::from(negated);
    let first = at;
    let mut found = false;
    loop {
        match pattern.get(at)? {
            // As the first of the set it means itself.
            ']' if at > first => {
                return (found != negated).then_some(at + 1);
            }
            _ => {
                let low = literal(pattern, &mut at)?;
                let mut high = low;
                if let [Some('-'), Some(end)] = [pattern.get(at), pattern.get(at + 1)]
                    && *end != ']'
                {
                    at += 1;
                    high = literal(pattern, &mut at)?;
                }
                found |= (low..=high).contains(&c);
            }
        }
    }
}

fn literal(pattern: &[char], at: &mut usize) -> Option<char> {
    if pattern.get(*at) == Some(&'\\') {
        *at += 1;
    }
    let c = *pattern.get(*at)?;
    *at += 1;
    Some(c)
}
