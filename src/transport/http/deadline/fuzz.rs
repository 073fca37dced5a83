use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::header::{Header, MILLIS};
use crate::deadline::Deadline;

/// The value of each header: what was understood is passed on as no more than that.
pub(crate) fn headers(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else {
        return;
    };
    for (content, name) in [
        ("application/grpc", HeaderName::from_static("grpc-timeout")),
        ("text/plain", MILLIS.clone()),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
        headers.insert(name, value.clone());
        let header = Header::of(&headers, &MILLIS);
        let Some(limit) = header.read(&headers) else {
            continue;
        };
        let _ = Deadline::within(limit);
        let mut onwards = HeaderMap::new();
        if header.write(limit, &mut onwards) {
            let read = header.read(&onwards).expect("what was written can be read");
            assert!(read <= limit);
        }
    }
}
