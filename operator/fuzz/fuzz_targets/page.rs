//! A Prometheus page, however it is cut into pieces: the same sum, or the same refusal.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, page)) = data.split_first() else { return };
    let (framed, zero) = (how & 1 == 1, how & 2 == 2);
    let size = usize::from(how >> 2) + 1;
    let whole = graceful_operator::fuzzing::page(page, usize::MAX, framed, zero);
    assert_eq!(whole, graceful_operator::fuzzing::page(page, size, framed, zero));
    assert!(whole.is_none_or(|total| total < 1 << 53));
});
