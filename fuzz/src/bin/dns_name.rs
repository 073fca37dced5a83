#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| buttress::fuzz::dns_name(bytes));
