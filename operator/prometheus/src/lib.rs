//! In-flight counts on Prometheus pages: which series count ([`MetricSelector`]), and their sum ([`Page`]).
//!
//! The operator asks apps with it, and the gate does the same over loopback. Both hold to one rule: what is not surely a count is an error, never zero.

mod page;
mod selector;

pub use page::{LONGEST_PAGE, Page, PageError};
pub use selector::{MetricSelector, Series};

/// 2^53: below it every whole number is exact as a float, and so for every JSON reader.
pub const COUNT_LIMIT: u64 = 1 << 53;

/// The count that a float says: whole, not negative, and small enough that nobody rounded it.
pub fn whole(value: f64) -> Option<u64> {
    // Exact: below 2^53 every whole f64 is a u64. NaN fails the first comparison.
    (value >= 0.0 && value < COUNT_LIMIT as f64 && value.fract() == 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps P7.
    #[test]
    fn what_is_not_whole_is_no_count() {
        assert_eq!((whole(2e3), whole(-0.0)), (Some(2000), Some(0)));
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.1, 1e308, COUNT_LIMIT as f64] {
            assert_eq!(whole(value), None, "{value}");
        }
    }
}
