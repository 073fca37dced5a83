#![no_main]
//! What the headers of an answer say of trying again: over HTTP, and over gRPC.

use std::time::{Duration, SystemTime};

use buttress::transport::http::retry_after;
use buttress::transport::tonic::{GrpcResponse, Pushback};
use http::{HeaderValue, Response, header};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    let mut answer = Response::new(());
    for name in ["retry-after", "grpc-status", "grpc-retry-pushback-ms"] {
        answer.headers_mut().insert(name, value.clone());
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    if let Some(wait) = retry_after(answer.headers(), now) {
        // No later than the last second of a date, or as many as were said.
        let said = value.to_str().expect("it was read").trim();
        assert!(said.len() > 19 || wait.as_secs().to_string().len() <= said.len());
    }
    let Some(failure) = answer.failure() else {
        return;
    };
    if let Some(Pushback::After(wait)) = failure.pushback {
        assert!(wait <= Duration::from_millis(i32::MAX as u64));
    }
    assert!(answer.headers().contains_key(header::RETRY_AFTER));
});
