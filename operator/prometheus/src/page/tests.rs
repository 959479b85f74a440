use proptest::prelude::*;

use super::*;

/// What is wrong, whatever the words.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    NotPrometheus,
    Missing,
    Empty,
    NotACount,
}

impl From<PageError> for Wrong {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Unreadable { .. } | PageError::LongLine | PageError::NotWhole { .. } => {
                Self::NotPrometheus
            }
            PageError::Missing { .. } => Self::Missing,
            PageError::Empty { .. } => Self::Empty,
            PageError::NotACount { .. } => Self::NotACount,
        }
    }
}

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

/// Of a page that comes in pieces of so many bytes.
fn in_pieces(page: &[u8], size: usize, metric: &MetricSelector, framed: bool) -> Result<u64, PageError> {
    let mut sum = Page::new(std::slice::from_ref(metric), false);
    for piece in page.chunks(size) {
        sum.take(piece)?;
    }
    sum.end(framed)
}

fn total(text: &str, metric: &str) -> Result<u64, Wrong> {
    in_pieces(text.as_bytes(), usize::MAX, &metric.parse().unwrap(), true).map_err(Wrong::from)
}

#[test]
fn matching_series_are_summed() {
    assert_eq!(total(PAGE, "queue_length"), Ok(9));
    assert_eq!(total(PAGE, r#"queue_length{state="running"}"#), Ok(7));
    assert_eq!(total(PAGE, r#"queue_length{queue="mail, \"bulk\""}"#), Ok(3));
}

#[test]
fn an_absent_metric_is_not_zero() {
    assert_eq!(total(PAGE, "queue"), Err(Wrong::Missing));
    assert_eq!(total(PAGE, r#"queue_length{state="paused"}"#), Err(Wrong::Missing));
    assert_eq!(total("", "queue"), Err(Wrong::Missing));
}

/// Only where the user says so, and only on a page that is whole and has something else on it.
#[test]
fn an_absent_metric_is_zero_where_the_user_says_so() {
    let total = |page: &str, metric: &str| {
        let metric = metric.parse().unwrap();
        let mut sum = Page::new(std::slice::from_ref(&metric), true);
        sum.take(page.as_bytes()).and_then(|()| sum.end(true)).map_err(Wrong::from)
    };
    assert_eq!(total(PAGE, "jobs_running"), Ok(0));
    assert_eq!(total(PAGE, r#"queue_length{state="paused"}"#), Ok(0));
    assert_eq!(total(PAGE, "queue_length"), Ok(9), "what is there counts");
    for empty in ["", "\n", "# HELP jobs_running Jobs.\n# TYPE jobs_running gauge\n", "# EOF\n"] {
        assert_eq!(total(empty, "jobs_running"), Err(Wrong::Empty), "{empty:?}");
    }
    for broken in ["up 1\n<html>\n", "up 1\njobs_run", "up\n", "up 1\njobs_running NaN\n"] {
        assert!(total(broken, "jobs_running").is_err(), "{broken:?}");
    }
}

/// What was cut off between two lines leaves no trace: the metric may have been there.
#[test]
fn an_absent_metric_is_zero_only_on_a_page_that_is_surely_whole() {
    let metric = "jobs_running".parse().unwrap();
    let zero = |page: &str, framed| {
        let mut sum = Page::new(std::slice::from_ref(&metric), true);
        sum.take(page.as_bytes()).and_then(|()| sum.end(framed)).map_err(Wrong::from)
    };
    assert_eq!(zero("up 1\n", false), Err(Wrong::NotPrometheus));
    assert_eq!(zero("up 1\n", true), Ok(0));
    assert_eq!(zero("up 1\n# EOF\n", false), Ok(0));
}

/// Keeps P7.
#[test]
fn what_is_not_a_count_is_busy() {
    for value in ["NaN", "+Inf", "-Inf", "-1", "0.5", "1e308"] {
        assert_eq!(total(&format!("q {value}"), "q"), Err(Wrong::NotACount), "{value}");
    }
    let huge = format!("q{{a=\"1\"}} {0}\nq{{a=\"2\"}} {0}", COUNT_LIMIT - 1);
    assert_eq!(total(&huge, "q"), Err(Wrong::NotACount));
}

#[test]
fn a_page_that_cannot_be_read_is_busy_even_past_the_metric() {
    for page in
        ["q 0\n<html>", "q", "q{a} 1", "q 0 soon", "q \"0\"", "q{a=\"b} 0", "{} 0", "q 0\nr{", "q 0\nr x"]
    {
        assert_eq!(total(page, "q"), Err(Wrong::NotPrometheus), "{page}");
    }
}

#[test]
fn a_page_is_the_same_however_it_is_cut() {
    let metric = "queue_length".parse().unwrap();
    for size in 1..80 {
        assert_eq!(in_pieces(PAGE.as_bytes(), size, &metric, false).unwrap(), 9, "in pieces of {size}");
    }
}

/// `q 0` may be the beginning of `q 0.5`, and `q 1` of `q 12`.
#[test]
fn a_page_that_may_have_been_cut_in_a_line_is_busy() {
    let metric = "q".parse().unwrap();
    let ends = |page: &str, framed| in_pieces(page.as_bytes(), 7, &metric, framed).map_err(Wrong::from);
    assert_eq!(ends("q 0\n", false), Ok(0));
    assert_eq!(ends("q 0", false), Err(Wrong::NotPrometheus));
    assert_eq!(ends("q 0\nr{path=\"/a", false), Err(Wrong::NotPrometheus));
    assert_eq!(ends("q 0\nr{path=\"/a", true), Err(Wrong::NotPrometheus));
    assert_eq!(ends("q 0", true), Ok(0));
}

#[test]
fn a_line_without_end_is_not_kept() {
    let metric = "q".parse().unwrap();
    for (start, filler) in [("# HELP q ", b'x'), ("q{a=\"", b'x'), ("", b' ')] {
        let mut page = Page::new(std::slice::from_ref(&metric), false);
        page.take(start.as_bytes()).unwrap();
        let met = (0..100).find_map(|_| page.take(&[filler; 4096]).err());
        assert_eq!(met.map(Wrong::from), Some(Wrong::NotPrometheus));
        assert!(page.begun.capacity() <= 2 * LONGEST_LINE, "{} bytes are kept", page.begun.capacity());
    }
    // The bound is the same for a line that comes whole.
    let long = format!("q{{a=\"{}\"}} 0\n", "x".repeat(LONGEST_LINE));
    assert_eq!(total(&long, "q"), Err(Wrong::NotPrometheus));
}

#[test]
fn what_is_not_utf_8_is_busy() {
    let metric = "q".parse().unwrap();
    for page in [&b"q 0\nr{a=\"\xff\"} 1\n"[..], b"q 0\n# HELP \xc3\n", b"q 0\n\xf0\x9f\x98"] {
        let met = in_pieces(page, 3, &metric, true).unwrap_err();
        assert_eq!(Wrong::from(met), Wrong::NotPrometheus, "{page:?}");
    }
    // Cut in the middle of a letter is not wrong.
    assert_eq!(in_pieces("q{a=\"ü😀\"} 4\n".as_bytes(), 1, &metric, true).unwrap(), 4);
}

proptest! {
    /// However a page is cut into pieces, what is read is the same.
    #[test]
    fn pieces_do_not_matter(page in "([qr]?(\\{a=\"[bc\\\\\"]?\"\\})? ?[0-9eNa.-]{0,3}[\n#]?){0,6}", size in 1usize..9, framed: bool) {
        let metric = "q".parse().unwrap();
        let whole = in_pieces(page.as_bytes(), usize::MAX, &metric, framed).map_err(|e| e.to_string());
        let pieces = in_pieces(page.as_bytes(), size, &metric, framed).map_err(|e| e.to_string());
        prop_assert_eq!(whole, pieces);
    }
}

proptest! {
    /// P7: a page of a pod with seven in flight, cut or with one byte changed, is seven, another count, or an error; never zero.
    #[test]
    fn a_damaged_page_is_never_zero(at in 0usize..200, cut: bool, byte: u8, framed: bool, zero: bool) {
        const BUSY: &[u8] = b"up 1\nqueue_length{state=\"running\"} 7\nqueue_length{state=\"queued\"} 12\nhttp_seconds_sum 0.5\n";
        let metric = "queue_length".parse().unwrap();
        let at = at % BUSY.len();
        let mut page = BUSY.to_vec();
        if cut {
            page.truncate(at);
        } else {
            page[at] = byte;
        }
        let mut sum = Page::new(std::slice::from_ref(&metric), zero);
        // HTTP would not call a page whole that was cut.
        let total = sum.take(&page).and_then(|()| sum.end(framed && !cut));
        prop_assert!(total.as_ref().map_or(true, |n| *n > 0), "{}", String::from_utf8_lossy(&page));
    }
}

/// By hand: `cargo test -p graceful-prometheus --release -- --ignored --nocapture what_a_page_costs`.
#[test]
#[ignore = "a measurement"]
fn what_a_page_costs() {
    let metric = r#"queue_length{state="running"}"#.parse().unwrap();
    let mut page = String::new();
    let mut lines = 0u32;
    while page.len() < 2_000_000 {
        let route = lines / 12 % 97;
        page.push_str(&format!(
            "http_request_duration_seconds_bucket{{method=\"GET\",route=\"/v1/things/{route}\",status=\"200\",le=\"{}\"}} {lines}\n",
            lines % 12
        ));
        lines += 1;
    }
    page.push_str("queue_length{state=\"running\"} 3\n");
    let begun = std::time::Instant::now();
    for _ in 0..20 {
        assert_eq!(in_pieces(page.as_bytes(), 16 * 1024, &metric, true).unwrap(), 3);
    }
    let each = begun.elapsed() / 20;
    println!(
        "{} bytes, {lines} lines: {each:?} a page, {} ns a line",
        page.len(),
        each.as_nanos() / u128::from(lines)
    );
}

/// Each of several must be there, not only one.
#[test]
fn several_metrics_are_summed() {
    let total = |texts: &[&str], absent_is_zero| {
        let metrics: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let mut sum = Page::new(&metrics, absent_is_zero);
        sum.take(PAGE.as_bytes()).and_then(|()| sum.end(true)).map_err(Wrong::from)
    };
    assert_eq!(total(&["queue_length", "queue_length_max"], false), Ok(18));
    assert_eq!(total(&["queue_length", "gone"], false), Err(Wrong::Missing));
    assert_eq!(total(&["queue_length", "gone"], true), Ok(9));
}
