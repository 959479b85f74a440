//! As much of the Prometheus text format as it takes to sum a metric, and strict: what it cannot read is an error, never zero.

use graceful_api::{MetricSelector, metric};

use super::count;
use super::error::{AskError, excerpt};

/// The sum over all series that match. None that matches is an error: an absent metric is not zero.
pub(crate) fn sum(text: &str, metric: &MetricSelector) -> Result<u64, AskError> {
    let mut found = false;
    let mut total = 0u64;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let series = Series::parse(line).ok_or_else(|| AskError::NotPrometheus {
            why: format!("cannot read the line {:?}", excerpt(line)),
        })?;
        if !metric.matches(series.name, |label| series.label(label)) {
            continue;
        }
        found = true;
        let value = count::from_float(series.name, series.value)?;
        total = total.saturating_add(value);
    }
    if !found {
        return Err(AskError::MetricMissing { metric: metric.to_string() });
    }
    if total >= count::LIMIT {
        let (what, found) = (format!("the sum over {metric}"), total.to_string());
        return Err(AskError::NotACount { what, found });
    }
    Ok(total)
}

/// One line: `name{label="value",…} value [timestamp]`.
struct Series<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Series<'a> {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str())
    }

    fn parse(line: &'a str) -> Option<Self> {
        let (name, labels, rest) = metric::series(line)?;
        let mut words = rest.split_ascii_whitespace();
        let value = number(words.next()?)?;
        // A timestamp may follow, and OpenMetrics' exemplar after a #.
        match words.next() {
            Some(word) if word != "#" => word.parse::<f64>().ok().map(|_| ())?,
            Some(_) | None => (),
        }
        Some(Self { name, labels, value })
    }
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
mod tests {
    use super::*;

    const PAGE: &str = r#"
# HELP queue_length Tasks by state.
# TYPE queue_length gauge
queue_length{state="queued"} 2
queue_length{state="running",queue="mail, \"bulk\""} 3 1700000000000
queue_length { state = "running" , } 4.0
queue_length_max 9
http_seconds_sum 0.53
go_gc NaN
"#;

    fn total(text: &str, metric: &str) -> Result<u64, &'static str> {
        sum(text, &metric.parse().unwrap()).map_err(|e| e.class())
    }

    #[test]
    fn matching_series_are_summed() {
        assert_eq!(total(PAGE, "queue_length"), Ok(9));
        assert_eq!(total(PAGE, r#"queue_length{state="running"}"#), Ok(7));
        assert_eq!(total(PAGE, r#"queue_length{queue="mail, \"bulk\""}"#), Ok(3));
    }

    #[test]
    fn an_absent_metric_is_not_zero() {
        assert_eq!(total(PAGE, "queue"), Err("metric_missing"));
        assert_eq!(total(PAGE, r#"queue_length{state="paused"}"#), Err("metric_missing"));
        assert_eq!(total("", "queue"), Err("metric_missing"));
    }

    #[test]
    fn what_is_not_a_count_is_busy() {
        for value in ["NaN", "+Inf", "-Inf", "-1", "0.5", "1e308"] {
            assert_eq!(total(&format!("q {value}"), "q"), Err("not_a_count"), "{value}");
        }
        let huge = format!("q{{a=\"1\"}} {0}\nq{{a=\"2\"}} {0}", count::LIMIT - 1);
        assert_eq!(total(&huge, "q"), Err("not_a_count"));
    }

    #[test]
    fn a_page_that_cannot_be_read_is_busy_even_past_the_metric() {
        for page in ["q 0\n<html>", "q", "q{a} 1", "q 0 soon", "q \"0\"", "q{a=\"b} 0", "{} 0"] {
            assert_eq!(total(page, "q"), Err("not_prometheus"), "{page}");
        }
    }
}
