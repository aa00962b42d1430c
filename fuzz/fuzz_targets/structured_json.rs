#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| polybus_fuzz::subjects::structured_json(data));
