//! As much of the Prometheus text format as it takes to sum metrics, read a line at a time while the page streams in, and strict: what it
//! cannot read is an error, never zero.

use memchr::memchr;

use crate::selector::{MetricSelector, Series};
use crate::{COUNT_LIMIT, whole};

/// The most of a page that is read. An app with thousands of series, and a histogram for each route, has 2 MB.
pub const LONGEST_PAGE: usize = 16 * 1024 * 1024;

/// The most of one line: what is kept of a page while it streams. A series with thirty long labels has some 4 KiB.
const LONGEST_LINE: usize = 64 * 1024;

/// How much of a line is shown.
const SHOWN: usize = 400;

/// Why a page has no sum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// A line is not of the format.
    #[error("{what} the line {line:?}")]
    Unreadable {
        /// As in "cannot read".
        what: &'static str,
        /// Its beginning.
        line: String,
    },
    /// A line is too long to keep.
    #[error("it has a line of more than {LONGEST_LINE} bytes")]
    LongLine,
    /// The metric may have been in a part that was cut off.
    #[error(
        "no series matches {metric}, and nothing says that the page is whole; send Content-Length, or end it with # EOF"
    )]
    NotWhole {
        /// The metric that no series matches.
        metric: String,
    },
    /// No series matches.
    #[error("no series matches {metric}")]
    Missing {
        /// The metric that no series matches.
        metric: String,
    },
    /// No series matches, and there is no other either.
    #[error("no series matches {metric}, and the page has no other series either")]
    Empty {
        /// The metric that no series matches.
        metric: String,
    },
    /// A value, or the sum, is not a count.
    #[error("{what} is {found}")]
    NotACount {
        /// The series, or the sum.
        what: String,
        /// Its value.
        found: String,
    },
}

/// A page on its way in, and the sum over the series that match so far.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    metrics: &'a [MetricSelector],
    absent_is_zero: bool,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    /// Which of the metrics had a series.
    found: Vec<bool>,
    /// There was any series.
    any: bool,
    /// OpenMetrics' last line was there.
    closed: bool,
    total: u64,
}

impl<'a> Page<'a> {
    /// A page of which these metrics are summed, each of which must be there unless `absent_is_zero`.
    pub fn new(metrics: &'a [MetricSelector], absent_is_zero: bool) -> Self {
        let found = vec![false; metrics.len()];
        Self { metrics, absent_is_zero, begun: Vec::new(), found, any: false, closed: false, total: 0 }
    }

    /// The next piece of it, cut anywhere.
    ///
    /// # Errors
    /// When a line of it cannot be read, or is no count where it should be.
    pub fn take(&mut self, mut piece: &[u8]) -> Result<(), PageError> {
        while let Some(end) = memchr(b'\n', piece) {
            let (head, tail) = (&piece[..end], &piece[end + 1..]);
            if self.begun.is_empty() {
                self.line(head)?;
            } else {
                self.keep(head)?;
                let mut begun = std::mem::take(&mut self.begun);
                self.line(&begun)?;
                begun.clear();
                self.begun = begun;
            }
            piece = tail;
        }
        self.keep(piece)
    }

    /// The sum. A metric that no series matches is an error: an absent metric is not zero, unless the user says that it is. Even then there must be some
    /// series: an exporter that is only starting answers with an empty page.
    ///
    /// `framed`: HTTP said how long the page is, or where it ends. Where the connection's end was the page's, a last line without its line feed
    /// may have been cut, and `12` be the rest of `120`.
    ///
    /// # Errors
    /// When there is no sum that is surely right.
    pub fn end(mut self, framed: bool) -> Result<u64, PageError> {
        let last = std::mem::take(&mut self.begun);
        if !last.is_empty() && !framed {
            return Err(unreadable("it ends in the middle of", &last));
        }
        self.line(&last)?;
        let absent = self.metrics.iter().zip(&self.found).find(|(_, found)| !**found);
        if let Some(metric) = absent.map(|(metric, _)| metric.to_string()) {
            match (self.absent_is_zero, self.any) {
                (false, _) => return Err(PageError::Missing { metric }),
                (true, false) => return Err(PageError::Empty { metric }),
                (true, true) if !framed && !self.closed => return Err(PageError::NotWhole { metric }),
                (true, true) => {}
            }
        }
        if self.total >= COUNT_LIMIT {
            let metrics: Vec<_> = self.metrics.iter().map(ToString::to_string).collect();
            let (what, found) = (format!("the sum over {}", metrics.join(", ")), self.total.to_string());
            return Err(PageError::NotACount { what, found });
        }
        Ok(self.total)
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), PageError> {
        bounded(self.begun.len().saturating_add(piece.len()))?;
        self.begun.extend_from_slice(piece);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), PageError> {
        bounded(line.len())?;
        let text = std::str::from_utf8(line).map_err(|_| unreadable("there is no UTF-8 in", line))?;
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with('#') {
            self.closed |= text == "# EOF";
            return Ok(());
        }
        let (series, value) = sample(text).ok_or_else(|| unreadable("cannot read", line))?;
        self.any = true;
        for (metric, found) in self.metrics.iter().zip(&mut self.found) {
            if metric.matches(&series) {
                *found = true;
                let count = whole(value).ok_or_else(|| PageError::NotACount {
                    what: series.name.to_owned(),
                    found: format!("{value:?}"),
                })?;
                self.total = self.total.saturating_add(count);
            }
        }
        Ok(())
    }
}

fn bounded(length: usize) -> Result<(), PageError> {
    if length > LONGEST_LINE { Err(PageError::LongLine) } else { Ok(()) }
}

fn unreadable(what: &'static str, line: &[u8]) -> PageError {
    PageError::Unreadable { what, line: String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned() }
}

/// One line: `name{label="value",…} value [timestamp]`.
fn sample(line: &str) -> Option<(Series<'_>, f64)> {
    let series = Series::read(line)?;
    let mut words = series.rest.split_ascii_whitespace();
    let value = number(words.next()?)?;
    // A timestamp may follow, and OpenMetrics' exemplar after a #.
    match words.next() {
        Some(word) if word != "#" => word.parse::<f64>().ok().map(|_| ())?,
        Some(_) | None => (),
    }
    Some((series, value))
}

fn number(word: &str) -> Option<f64> {
    match word {
        "NaN" => Some(f64::NAN),
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests;
