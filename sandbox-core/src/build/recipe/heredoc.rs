//! Finding here-documents, which a text can't hold: its lines are instructions.

use super::source::{Cursor, Pos};

/// Where one begins in a shell line.
pub(super) fn find(line: &Cursor<'_>) -> Option<Pos> {
    let mut rest = line.clone();
    let mut quote = None;
    // `<<` within `((…))` shifts bits.
    let mut arithmetic = 0_usize;
    loop {
        let at = rest.pos();
        if quote.is_none() {
            if rest.take_text("<<<") {
                continue;
            }
            if rest.take_text("<<") {
                rest.take_text("-");
                rest.skip_blanks();
                let named = |c: char| c.is_alphabetic() || "_\"'\\".contains(c);
                if arithmetic == 0 && rest.peek().is_some_and(named) {
                    return Some(at);
                }
                continue;
            }
            if rest.take_text("((") {
                arithmetic += 1;
                continue;
            }
            if rest.take_text("))") {
                arithmetic = arithmetic.saturating_sub(1);
                continue;
            }
        }
        match (rest.next()?, quote) {
            (c @ ('"' | '\''), None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => {
                rest.next();
            }
            _ => {}
        }
    }
}
