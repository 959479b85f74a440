//! A DrainStatus, or a JSON document with a pointer. The first byte says which, and whether HTTP said where it ends.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((how, body)) = data.split_first() else { return };
    let pointer = (how & 1 == 1).then_some("/inFlight/total");
    if let Some(total) = graceful_operator::fuzzing::document(body, pointer, how & 2 == 2) {
        assert!(total < 1 << 53);
    }
});
