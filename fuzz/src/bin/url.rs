#![no_main]
//! The URLs of the command, with which a password may come: it is opened, or what is wrong is told without that.

#[allow(dead_code)] // Some of it is for the command alone.
#[path = "../../../src/bin/buttress/credentials.rs"]
mod credentials;
#[path = "../../../src/bin/buttress/openers.rs"]
mod openers;
#[path = "../../../src/bin/buttress/place.rs"]
mod place;
#[allow(dead_code)]
#[path = "../../../src/bin/buttress/source.rs"]
mod source;

use credentials::Credentials;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    // A path is no URL that could have a password.
    if text.to_ascii_lowercase().starts_with("file") {
        return;
    }
    let url = text.replacen('@', ":S3CRET@", 1);
    let told = match source::open(&url, &Credentials::default(), None) {
        Ok(registry) => registry.name().to_owned(),
        Err(message) => message,
    };
    assert!(
        text.contains("S3CRET") || !told.contains("S3CRET"),
        "{told}"
    );
    assert!(!source::shown(&url).contains("S3CRET") || text.contains("S3CRET"));
});
