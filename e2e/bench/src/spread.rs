//! Samples, and what is said of them.

use serde::Serialize;

/// Of sorted samples, what most (p50) and nearly all (p99) were at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) samples: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Spread {
    /// None without samples.
    pub(crate) fn of(mut all: Vec<f64>) -> Option<Self> {
        all.sort_by(f64::total_cmp);
        Some(Self { samples: all.len(), p50: rank(&all, 0.50)?, p99: rank(&all, 0.99)? })
    }
}

/// The median of a few figures.
pub(crate) fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    rank(&all, 0.50)
}

/// The smallest sample that at least this share of them does not exceed.
fn rank(sorted: &[f64], share: f64) -> Option<f64> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_samples_and_never_beyond_them() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((spread.p50, spread.p99), (50.0, 99.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(Spread::of(vec![7.0]).unwrap().p99, 7.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
