#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| onelane::fuzzed::configuration(data));
