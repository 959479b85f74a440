//! What stands in a spec or an annotation as text: what is read is written so that it is read again as the same.
#![no_main]

use graceful_api::{MetricSelector, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(metric) = text.parse::<MetricSelector>() {
        assert_eq!(metric.to_string().parse::<MetricSelector>().as_ref(), Ok(&metric));
    }
    if let Ok(policy) = Policy::from_annotation(text) {
        assert!(policy.in_flight.poll_interval().as_secs() > 0);
        assert_eq!(Policy::from_annotation(&policy.to_annotation()).ok().as_ref(), Some(&policy));
    }
});
