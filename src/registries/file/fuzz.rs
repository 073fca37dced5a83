use super::format::Format;

pub(crate) fn json(bytes: &[u8]) {
    file(Format::Json, bytes);
}

pub(crate) fn toml(bytes: &[u8]) {
    file(Format::Toml, bytes);
}

/// A file: what was understood of it can be written, and is the same when it is read again.
fn file(format: Format, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match format.parse(text) {
        Ok(services) => {
            let written = format
                .print(&services)
                .expect("what was read can be written");
            assert_eq!(format.parse(&written), Ok(services), "{written}");
        }
        Err(message) => assert!(!message.is_empty()),
    }
}
