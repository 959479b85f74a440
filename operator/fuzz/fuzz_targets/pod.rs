//! A pod object: what its type takes, is parsed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| graceful_operator::fuzzing::pod(data));
