//! What a client may call itself: as it submits, as it lists, and as it listens.

const LONGEST: usize = 128;

/// A client id goes into every frame sent to that client, and into logs.
///
/// # Errors
/// What to write instead.
pub(crate) fn check(client: &str) -> Result<(), &'static str> {
    let fits = (1..=LONGEST).contains(&client.chars().count());
    if fits && !client.chars().any(|c| c.is_control() || turns_the_text(c)) {
        return Ok(());
    }
    Err("write a string of 1 to 128 characters without control characters and marks of direction")
}

/// Marks of direction (Unicode, `Bidi_Control`): one of them turns the rest of a page's line around.
const fn turns_the_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_bounded_by_characters() {
        assert!(check(&"ä".repeat(128)).is_ok());
        assert!(check("alice & bob").is_ok());
        for bad in ["", &"a".repeat(129), "a\nb", "\u{0}", "\u{85}", "a\u{202e}b", "\u{2067}"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
