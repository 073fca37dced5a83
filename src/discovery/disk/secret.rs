/// Whether an entry of the metadata looks as if it were nobody else's business: then it is not written to disk.
///
/// By key, whatever its case and punctuation; by value, if it is a URL with a user in it.
pub(super) fn looks_secret(key: &str, value: &str) -> bool {
    let key: String = key
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|char| char.to_ascii_lowercase())
        .collect();
    SECRETS.iter().any(|secret| key.contains(secret)) || has_user(value)
}

fn has_user(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let authority = rest.split(['/', '?', '#']).next();
    authority.is_some_and(|authority| authority.contains('@'))
}

const SECRETS: [&str; 11] = [
    "accesskey",
    "apikey",
    "authorization",
    "bearer",
    "cookie",
    "credential",
    "passphrase",
    "passw",
    "privatekey",
    "secret",
    "token",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_known_by_its_key_or_its_value() {
        let secret = [
            ("token", "x"),
            ("X-Consul-Token", "x"),
            ("DB_PASSWORD", "x"),
            ("db.passwd", "x"),
            ("client-secret", "x"),
            ("api_key", "x"),
            ("management.credentials", "x"),
            ("database", "postgres://user:pa55w0rd@db/orders"),
            ("proxy", "http://user@proxy"),
        ];
        for (key, value) in secret {
            assert!(looks_secret(key, value), "{key}={value}");
        }
        let open = [
            ("version", "1.4"),
            ("zone", "a"),
            ("management.port", "8081"),
            ("author", "team a"),
            ("docs", "https://docs/@team"),
            ("contact", "team@example.org"),
        ];
        for (key, value) in open {
            assert!(!looks_secret(key, value), "{key}={value}");
        }
    }
}
