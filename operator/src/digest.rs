//! Short names for what has none: of a key, of a child as it is wanted.

use sha2::{Digest, Sha256};

/// The first 16 hexadecimal digits of its SHA-256.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut digest = hex::encode(Sha256::digest(bytes));
    digest.truncate(16);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key ids are in Secrets and templates: another spelling would disown them.
    #[test]
    fn a_digest_is_spelt_as_it_was() {
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea");
    }
}
