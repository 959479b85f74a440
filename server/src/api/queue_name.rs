//! The name of a queue: it is in paths, in metrics and in each task.

const LONGEST: usize = 64;

/// Whether a queue may be called so.
///
/// # Errors
/// Says what to write.
pub(crate) fn check(name: &str) -> Result<(), String> {
    let usable = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=LONGEST).contains(&name.len()) && name.chars().all(usable) {
        return Ok(());
    }
    Err(format!("write 1 to {LONGEST} lower-case letters, digits, - and _"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_path_and_a_label() {
        for good in ["default", "a", "mail-7_b", &"x".repeat(64)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "Mail", "a/b", "a b", "ä", "..", &"x".repeat(65)] {
            assert!(check(bad).unwrap_err().contains("lower-case letters"), "{bad}");
        }
    }
}
