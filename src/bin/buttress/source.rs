//! Registries by their URLs.

use std::fs;
use std::path::Path;

use reqwest::Certificate;

use super::credentials::Credentials;
use super::openers::{self, Opened};
use super::place::Place;

/// The registry at `url`, or what is wrong with that.
pub(super) fn open(url: &str, credentials: &Credentials, ca: Option<&Path>) -> Opened {
    let found = url.split_once(':').and_then(|(scheme, rest)| {
        let scheme = scheme.to_ascii_lowercase();
        SCHEMES.iter().find_map(|(known, _, open)| {
            let secure = match scheme.strip_prefix(known)? {
                "" => false,
                "+https" | "s" => true,
                _ => return None,
            };
            Some((open, secure, rest))
        })
    });
    let Some((open, secure, rest)) = found else {
        let known: Vec<_> = SCHEMES.iter().map(|(scheme, ..)| *scheme).collect();
        let known = known.join(", ");
        return Err(format!(
            "`{}` names no registry: a URL begins with one of {known}, as in consul://127.0.0.1:8500",
            shown(url)
        ));
    };
    let place = Place {
        secure,
        url,
        rest: rest.strip_prefix("//").unwrap_or(rest),
        ca: ca.map(certificates).transpose()?.unwrap_or_default(),
        credentials,
    };
    open(&place)
}

/// `url` without what may be a secret.
pub(super) fn shown(url: &str) -> String {
    let (hidden, rest) = match url.rsplit_once('@') {
        Some((_, place)) => ("…@", place),
        None => ("", url),
    };
    let place = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{hidden}{place}")
}

/// How the URL of each registry is written, for people.
pub(super) fn forms() -> String {
    let forms = SCHEMES.iter().map(|(_, form, _)| format!("  {form}\n"));
    forms.collect()
}

/// What a URL begins with, how it is written, and what it opens.
const SCHEMES: &[(&str, &str, Open)] = &[
    (
        "consul",
        "consul://HOST:8500[,HOST:8500...][/PATH]",
        openers::consul,
    ),
    (
        "eureka",
        "eureka://HOST:8761[,HOST:8761...]/eureka",
        openers::eureka,
    ),
    (
        "etcd",
        "etcd://HOST:2379[,HOST:2379...][/PREFIX]",
        openers::etcd,
    ),
    (
        "zookeeper",
        "zookeeper://HOST:2181[,HOST:2181...][/CHROOT][?base=PATH]",
        openers::zookeeper,
    ),
    (
        "kubernetes",
        "kubernetes:[//HOST:6443][?port=NAME]   without a host, in a pod",
        openers::kubernetes,
    ),
    (
        "dns",
        "dns://[ADDRESS:53][,ADDRESS:53...][/NAME-WITH-{}][:PORT]   without a port, SRV",
        openers::dns,
    ),
    ("file", "file:PATH", openers::file),
];

type Open = fn(&Place) -> Opened;

fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let wrong = |error: String| format!("--ca {}: {error}", path.display());
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&text).map_err(|error| wrong(error.to_string()))?;
    match found.is_empty() {
        true => Err(wrong("it has no certificate in PEM".to_owned())),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(url: &str) -> Result<String, String> {
        let registry = open(url, &Credentials::default(), None)?;
        Ok(registry.name().to_owned())
    }

    #[test]
    fn each_scheme_opens_its_registry_with_and_without_tls() {
        for (url, expected) in [
            ("consul://h:8500", "consul at http://h:8500"),
            ("CONSUL://h:8500/path/", "consul at http://h:8500/path"),
            (
                "consul://me:pa,ss/w%40rd@a:1,b:2/path",
                "consul at http://a:1/path, http://b:2/path",
            ),
            ("consul+https://h:8501", "consul at https://h:8501"),
            ("consuls://h:8501", "consul at https://h:8501"),
            ("eureka://h:8761/eureka", "eureka at http://h:8761/eureka"),
            ("eureka+https://h/eureka", "eureka at https://h/eureka"),
            ("etcd://h:2379", "etcd at http://h:2379"),
            (
                "etcd+https://a:1,b:2/prefix",
                "etcd at https://a:1, https://b:2",
            ),
            (
                "zookeeper://a:1,b:2/team?base=/x",
                "zookeeper at a:1,b:2/team",
            ),
            ("zookeeper://me:pw@a:1", "zookeeper at a:1"),
            ("kubernetes://h:8001", "kubernetes at http://h:8001"),
            ("kubernetes+https://h:1?port=x", "kubernetes at https://h:1"),
            (
                "dns://10.0.0.1,[::1]:5/{}.shop:80",
                "dns at 10.0.0.1:53, [::1]:5",
            ),
            ("dns://[::1]", "dns at [::1]:53"),
            ("dns:///{}.shop", "dns of the system"),
            ("dns:", "dns of the system"),
            ("file:peers.toml", "file peers.toml"),
            ("file:///etc/peers.json", "file /etc/peers.json"),
        ] {
            assert_eq!(name(url).as_deref(), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_names_no_registry_is_told_the_schemes() {
        for url in [
            "",
            "orders",
            "http://h:8500",
            "consulx://h",
            "files:x",
            "zzz:x",
        ] {
            let error = name(url).unwrap_err();
            assert!(error.contains("file"), "{error}");
        }
        let error = name("nacos://me:pa55@h").unwrap_err();
        assert!(error.contains("`…@h`") && error.contains("consul, eureka, etcd, zookeeper"));
    }

    #[test]
    fn a_user_without_a_password_or_the_other_way_is_refused() {
        assert_eq!(
            name("etcd://me@h:2379").unwrap_err(),
            "`…@h:2379`: the user has no password"
        );
        assert!(name("etcd://me:pa55@h:2379").is_ok());
        assert_eq!(
            name("eureka://:pa55@h:2379").unwrap_err(),
            "`…@h:2379`: the password has no user"
        );
    }

    proptest! {
        #[test]
        fn no_url_whatever_shows_its_password(
            scheme in "consul|consuls|eureka|etcd|zookeeper|kubernetes|dns|file|nacos|",
            separator in ":|://|/|",
            user in "[a-z:/?#%,@]{0,4}",
            after in "[a-z:/?#%,@]{0,4}",
            rest in "[a-z0-9:/,.%-]{0,12}",
        ) {
            let url = format!("{scheme}{separator}{user}:S3CRET{after}@{rest}");
            // A path is no URL that could have one.
            prop_assume!(scheme != "file");
            match name(&url) {
                Ok(text) | Err(text) => prop_assert!(!text.contains("S3CRET"), "{text}"),
            }
        }
    }
}
