//! As much of the Prometheus text format as it takes to sum metrics, a line at a time while the page streams in, and strict: what it cannot read is an error,
//! never zero.

use memchr::memchr;

use super::ask::AskError;
use super::question::WhenAbsent;
use crate::metric::{MetricSelector, Series};

/// The most of one line: what is kept of a page while it streams.
const LONGEST_LINE: usize = 64 * 1024;

/// 2^53: up to here every whole number is exact as a float.
pub(crate) const LIMIT: u64 = 1 << 53;

/// A page on its way in, and the sum so far.
pub(crate) struct Page<'a> {
    metrics: &'a [MetricSelector],
    when_absent: WhenAbsent,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    /// Which of the metrics had a series.
    found: Vec<bool>,
    /// There was any series: an exporter that is only starting answers with an empty page.
    any: bool,
    /// OpenMetrics' last line was there.
    closed: bool,
    total: u64,
}

impl<'a> Page<'a> {
    pub(crate) fn new(metrics: &'a [MetricSelector], when_absent: WhenAbsent) -> Self {
        let found = vec![false; metrics.len()];
        Self { metrics, when_absent, begun: Vec::new(), found, any: false, closed: false, total: 0 }
    }

    /// The next piece of it, cut anywhere.
    pub(crate) fn take(&mut self, mut piece: &[u8]) -> Result<(), AskError> {
        while let Some(end) = memchr(b'\n', piece) {
            self.keep(&piece[..end])?;
            let mut line = std::mem::take(&mut self.begun);
            self.line(&line)?;
            line.clear();
            self.begun = line;
            piece = &piece[end + 1..];
        }
        self.keep(piece)
    }

    /// The sum. `framed`: HTTP said where the page ends; else a last line without its line feed may have been cut, and `12` be the rest of `120`.
    pub(crate) fn end(mut self, framed: bool) -> Result<u64, AskError> {
        let last = std::mem::take(&mut self.begun);
        if !last.is_empty() && !framed {
            return Err(AskError::Unreadable(
                "the page ends in the middle of a line; send Content-Length".to_owned(),
            ));
        }
        self.line(&last)?;
        if let Some((metric, _)) = self.metrics.iter().zip(&self.found).find(|(_, found)| !**found) {
            let whole = self.any && (framed || self.closed);
            if self.when_absent == WhenAbsent::Busy || !whole {
                return Err(AskError::Missing(metric.to_string()));
            }
        }
        if self.total >= LIMIT {
            return Err(AskError::NotACount(self.total.to_string()));
        }
        Ok(self.total)
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), AskError> {
        if self.begun.len() + piece.len() > LONGEST_LINE {
            return Err(AskError::Unreadable(format!("a line has more than {LONGEST_LINE} bytes")));
        }
        self.begun.extend_from_slice(piece);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), AskError> {
        let unreadable = || {
            let shown = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
            AskError::Unreadable(format!("cannot read the line {shown:?}"))
        };
        let text = std::str::from_utf8(line).map_err(|_| unreadable())?.trim_ascii();
        if text.is_empty() || text.starts_with('#') {
            self.closed |= text == "# EOF";
            return Ok(());
        }
        let (series, value) = sample(text).ok_or_else(unreadable)?;
        self.any = true;
        for (metric, found) in self.metrics.iter().zip(&mut self.found) {
            if metric.matches(&series) {
                *found = true;
                self.total =
                    self.total.saturating_add(whole(value).ok_or(AskError::NotACount(value.to_string()))?);
            }
        }
        Ok(())
    }
}

/// One line: `name{label="value",…} value [timestamp]`, and OpenMetrics' exemplar after a #.
fn sample(line: &str) -> Option<(Series<'_>, f64)> {
    let series = Series::read(line)?;
    let mut words = series.rest.split_ascii_whitespace();
    let value = match words.next()? {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        word => word.parse().ok()?,
    };
    match words.next() {
        Some(word) if word != "#" => word.parse::<f64>().ok().map(|_| ())?,
        Some(_) | None => (),
    }
    Some((series, value))
}

/// A count is whole, not negative, and small enough that nobody rounded it.
pub(crate) fn whole(value: f64) -> Option<u64> {
    (value >= 0.0 && value < LIMIT as f64 && value.fract() == 0.0).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(metrics: &[&str], when_absent: WhenAbsent, page: &str, framed: bool) -> Result<u64, String> {
        let metrics: Vec<_> = metrics.iter().map(|text| text.parse().unwrap()).collect();
        let whole = |cut: usize| {
            let mut sum = Page::new(&metrics, when_absent);
            page.as_bytes().chunks(cut).try_for_each(|piece| sum.take(piece))?;
            sum.end(framed)
        };
        let found = whole(usize::MAX).map_err(|error| error.to_string());
        assert_eq!(found, whole(1).map_err(|error| error.to_string()), "however it is cut");
        found
    }

    const PAGE: &str = "# HELP x y\nvllm:num_requests_running{model=\"a\"} 2\nvllm:num_requests_running{model=\"b\"} 1.0\n\
                        vllm:num_requests_waiting{model=\"a\"} 4 1700000000\nother 0.5\n";

    #[test]
    fn it_adds_up_what_matches() {
        let both = ["vllm:num_requests_running", "vllm:num_requests_waiting"];
        assert_eq!(sum(&both, WhenAbsent::Busy, PAGE, true), Ok(7));
        assert_eq!(sum(&[r#"vllm:num_requests_running{model="b"}"#], WhenAbsent::Busy, PAGE, true), Ok(1));
    }

    #[test]
    fn what_is_not_surely_a_count_is_an_error() {
        for (metric, when_absent, page, framed) in [
            ("gone", WhenAbsent::Busy, PAGE, true),
            // Absent may be zero only on a page that is whole, and has anything at all.
            ("gone", WhenAbsent::Zero, PAGE, false),
            ("gone", WhenAbsent::Zero, "", true),
            ("other", WhenAbsent::Busy, PAGE, true),
            ("a", WhenAbsent::Busy, "a 12", false),
            ("a", WhenAbsent::Busy, "a NaN\n", true),
            ("a", WhenAbsent::Busy, "a -1\n", true),
            ("a", WhenAbsent::Busy, "a +Inf\n", true),
            ("a", WhenAbsent::Busy, "a 9007199254740992\n", true),
            ("a", WhenAbsent::Busy, "a 0\n<html>\n", true),
        ] {
            assert!(sum(&[metric], when_absent, page, framed).is_err(), "{metric} in {page:?}");
        }
        assert_eq!(sum(&["gone"], WhenAbsent::Zero, PAGE, true), Ok(0));
        assert_eq!(sum(&["gone"], WhenAbsent::Zero, "b 1\n# EOF\n", false), Ok(0));
        // Each of them must be there, not only one.
        assert!(sum(&["vllm:num_requests_running", "gone"], WhenAbsent::Busy, PAGE, true).is_err());
        assert_eq!(sum(&["vllm:num_requests_running", "gone"], WhenAbsent::Zero, PAGE, true), Ok(3));
    }
}
