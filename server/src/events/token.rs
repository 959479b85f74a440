//! [`Token`], where a client is in a stream of events: `<stream>.<number>`, the number of the last event it has seen.

use std::fmt;

use serde::{Serialize, Serializer};

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// The queue's numbering.
    pub(crate) stream: &'a str,
    /// The last event seen; 0 before the first.
    pub(crate) number: u64,
}

impl<'a> Token<'a> {
    /// Reads a token as a client sends it.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn parse(text: &'a str) -> Result<Self, String> {
        let parsed = text.rsplit_once('.').and_then(|(stream, number)| {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            Some(Self { stream, number: digits.then(|| number.parse().ok()).flatten()? })
        });
        parsed.filter(|token| !token.stream.is_empty()).ok_or_else(|| {
            "is no place in a stream; write the `id` of the last event you have seen".to_owned()
        })
    }
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream, self.number)
    }
}

impl Serialize for Token<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        for token in [Token { stream: "a.b", number: 0 }, Token { stream: "s", number: u64::MAX }] {
            assert_eq!(Token::parse(&token.to_string()), Ok(token));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", ".", "7", "s.", "s.-1", "s.+1", "s.x", ".7", "s.99999999999999999999"] {
            assert!(Token::parse(text).unwrap_err().contains("write the `id`"), "{text}");
        }
    }
}
