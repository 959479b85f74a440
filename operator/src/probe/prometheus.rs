//! As much of the Prometheus text format as it takes to sum a metric, read a line at a time while the page streams in, and strict: what it
//! cannot read is an error, never zero.

use graceful_api::{MetricSelector, WhenAbsent, metric::Series};
use memchr::memchr;

use super::count;
use super::error::{AskError, excerpt};

/// The most of a page that is read. An app with thousands of series, and a histogram for each route, has 2 MB.
pub(crate) const LONGEST_PAGE: usize = 16 * 1024 * 1024;

/// The most of one line: what is kept of a page while it streams. A series with thirty long labels has some 4 KiB.
const LONGEST_LINE: usize = 64 * 1024;

/// A page on its way in, and the sum over the series that match so far.
pub(crate) struct Page<'a> {
    metric: &'a MetricSelector,
    when_absent: WhenAbsent,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    /// A series matched.
    found: bool,
    /// Another one did not.
    others: bool,
    /// OpenMetrics' last line was there.
    closed: bool,
    total: u64,
}

impl<'a> Page<'a> {
    pub(crate) fn new(metric: &'a MetricSelector, when_absent: WhenAbsent) -> Self {
        Self { metric, when_absent, begun: Vec::new(), found: false, others: false, closed: false, total: 0 }
    }

    /// The next piece of it, cut anywhere.
    pub(crate) fn take(&mut self, mut piece: &[u8]) -> Result<(), AskError> {
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

    /// The sum. None that matches is an error: an absent metric is not zero, unless the user says that it is. Even then there must be other
    /// series: an exporter that is only starting answers with an empty page.
    ///
    /// `framed`: HTTP said how long the page is, or where it ends. Where the connection's end was the page's, a last line without its line feed
    /// may have been cut, and `12` be the rest of `120`.
    pub(crate) fn end(mut self, framed: bool) -> Result<u64, AskError> {
        let last = std::mem::take(&mut self.begun);
        if !last.is_empty() && !framed {
            return Err(unreadable("it ends in the middle of", &last));
        }
        self.line(&last)?;
        match self.when_absent {
            _ if self.found => {}
            WhenAbsent::Zero if self.others && (framed || self.closed) => {}
            WhenAbsent::Zero if self.others => {
                let why = format!(
                    "no series matches {}, and nothing says that the page is whole; send Content-Length, or end it with # EOF",
                    self.metric
                );
                return Err(AskError::NotPrometheus { why });
            }
            WhenAbsent::Zero => return Err(AskError::PageEmpty { metric: self.metric.to_string() }),
            WhenAbsent::Busy => return Err(AskError::MetricMissing { metric: self.metric.to_string() }),
        }
        if self.total >= count::LIMIT {
            let (what, found) = (format!("the sum over {}", self.metric), self.total.to_string());
            return Err(AskError::NotACount { what, found });
        }
        Ok(self.total)
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), AskError> {
        bounded(self.begun.len().saturating_add(piece.len()))?;
        self.begun.extend_from_slice(piece);
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), AskError> {
        bounded(line.len())?;
        let text = std::str::from_utf8(line).map_err(|_| unreadable("there is no UTF-8 in", line))?;
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with('#') {
            self.closed |= text == "# EOF";
            return Ok(());
        }
        let (series, value) = sample(text).ok_or_else(|| unreadable("cannot read", line))?;
        if self.metric.matches(&series) {
            self.found = true;
            self.total = self.total.saturating_add(count::from_float(series.name, value)?);
        } else {
            self.others = true;
        }
        Ok(())
    }
}

fn bounded(length: usize) -> Result<(), AskError> {
    if length > LONGEST_LINE {
        let why = format!("it has a line of more than {LONGEST_LINE} bytes");
        return Err(AskError::NotPrometheus { why });
    }
    Ok(())
}

fn unreadable(what: &str, line: &[u8]) -> AskError {
    let shown = excerpt(&String::from_utf8_lossy(&line[..line.len().min(400)]));
    AskError::NotPrometheus { why: format!("{what} the line {shown:?}") }
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
