//! What a client may call itself: as it submits, as it lists, and as it listens.

const LONGEST: usize = 128;

/// A client id goes into every frame sent to that client, and into logs.
///
/// # Errors
/// What to write instead.
pub(crate) fn check(client: &str) -> Result<(), &'static str> {
    let fits = (1..=LONGEST).contains(&client.chars().count());
    if fits && !client.chars().any(char::is_control) {
        return Ok(());
    }
    Err("write a string of 1 to 128 characters without control characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_are_bounded_by_characters() {
        assert!(check(&"ä".repeat(128)).is_ok());
        assert!(check("alice & bob").is_ok());
        for bad in ["", &"a".repeat(129), "a\nb", "\u{0}", "\u{85}"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
