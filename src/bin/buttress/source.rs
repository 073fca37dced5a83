//! Registries by their URLs.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use buttress::Registry;
use buttress::discovery::RegistryError;
use buttress::registries::consul::Consul;
use buttress::registries::etcd::Etcd;
use buttress::registries::eureka::Eureka;
use buttress::registries::file::File;
use percent_encoding::percent_decode_str;
use reqwest::{Certificate, ClientBuilder, Url};
use secrecy::ExposeSecret;

use super::credentials::Credentials;

/// The registry at `url`, or what is wrong with that.
pub(super) fn open(
    url: &str,
    credentials: &Credentials,
    ca: Option<&Path>,
) -> Result<Arc<dyn Registry>, String> {
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
    ("consul", "consul://HOST:8500[/PATH]", consul),
    ("eureka", "eureka://HOST:8761/eureka", eureka),
    ("etcd", "etcd://HOST:2379[,HOST:2379...][/PREFIX]", etcd),
    ("file", "file:PATH", file),
];

type Open = fn(&Place) -> Result<Arc<dyn Registry>, String>;

/// What follows the scheme, and what else is known.
struct Place<'a> {
    secure: bool,
    /// As it was written.
    url: &'a str,
    rest: &'a str,
    ca: Vec<Certificate>,
    credentials: &'a Credentials,
}

impl Place<'_> {
    /// The scheme of HTTP for it.
    fn http(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Its URL, with the user and password of the environment where it has none.
    fn url(&self) -> Result<String, String> {
        let url = format!("{}://{}", self.http(), self.rest);
        // What cannot be read is the registry's to refuse.
        let Ok(mut read) = Url::parse(&url) else {
            return Ok(url);
        };
        // The end of a password, taken for a path.
        if [Some(read.path()), read.query(), read.fragment()]
            .iter()
            .flatten()
            .any(|it| it.contains('@'))
        {
            let message = "in a user or password, write / as %2F, ? as %3F and # as %23";
            return Err(format!("`{}`: {message}", shown(self.url)));
        }
        // Neither can fail where there is a host.
        if let (Some(user), "") = (&self.credentials.user, read.username()) {
            let _ = read.set_username(user);
        }
        if let (Some(password), None) = (&self.credentials.password, read.password()) {
            if !read.username().is_empty() {
                let _ = read.set_password(Some(password.expose_secret()));
            }
        }
        Ok(read.into())
    }

    fn client(&self) -> ClientBuilder {
        // A registry is a neighbour: the proxies of the environment are for what is far away.
        let builder = ClientBuilder::new().no_proxy();
        builder.tls_certs_merge(self.ca.iter().cloned())
    }
}

fn consul(place: &Place) -> Result<Arc<dyn Registry>, String> {
    let consul = Consul::new(&place.url()?).and_then(|consul| consul.client(place.client()));
    let consul = consul.map_err(told)?;
    let credentials = place.credentials;
    let token = credentials.token.as_ref();
    Ok(match token.or(credentials.consul_token.as_ref()) {
        Some(token) => Arc::new(consul.token(token.clone())),
        None => Arc::new(consul),
    })
}

fn eureka(place: &Place) -> Result<Arc<dyn Registry>, String> {
    let eureka = Eureka::new(&place.url()?).and_then(|eureka| eureka.client(place.client()));
    Ok(Arc::new(eureka.map_err(told)?.poll(POLL)))
}

/// Members separated by commas, then a prefix.
fn etcd(place: &Place) -> Result<Arc<dyn Registry>, String> {
    let (user, place_of) = match place.rest.rsplit_once('@') {
        Some((user, rest)) => (user, rest),
        None => ("", place.rest),
    };
    let (members, prefix) = place_of.split_once('/').unwrap_or((place_of, ""));
    let members: Vec<_> = (members.split(','))
        .map(|member| format!("{}://{member}", place.http()))
        .collect();
    let etcd = Etcd::new(&members.join(",")).and_then(|etcd| etcd.client(place.client()));
    let etcd = etcd.map_err(told)?.prefix(prefix);

    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let credentials = place.credentials;
    let name = match name {
        "" => credentials.user.clone(),
        name => Some(decoded(name)),
    };
    let password = match password {
        "" => credentials.password.clone(),
        password => Some(decoded(password).into()),
    };
    Ok(match (name, password) {
        (Some(name), Some(password)) => Arc::new(etcd.user(name, password)),
        (Some(_), None) => return Err("etcd: the user has no password".to_owned()),
        (None, _) => Arc::new(etcd),
    })
}

fn file(place: &Place) -> Result<Arc<dyn Registry>, String> {
    if place.rest.is_empty() || place.secure {
        return Err("a file is written as file:PATH".to_owned());
    }
    Ok(Arc::new(File::new(place.rest)))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let wrong = |error: String| format!("--ca {}: {error}", path.display());
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = Certificate::from_pem_bundle(&text).map_err(|error| wrong(error.to_string()))?;
    match found.is_empty() {
        true => Err(wrong("it has no certificate in PEM".to_owned())),
        false => Ok(found),
    }
}

fn told(error: RegistryError) -> String {
    format!("{}: {}", error.registry(), error.message())
}

/// Somebody waits for it: more often than a client asks.
const POLL: Duration = Duration::from_secs(5);

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
            ("consul+https://h:8501", "consul at https://h:8501"),
            ("consuls://h:8501", "consul at https://h:8501"),
            ("eureka://h:8761/eureka", "eureka at http://h:8761/eureka"),
            ("eureka+https://h/eureka", "eureka at https://h/eureka"),
            ("etcd://h:2379", "etcd at http://h:2379"),
            (
                "etcd+https://a:1,b:2/prefix",
                "etcd at https://a:1, https://b:2",
            ),
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
        assert!(error.contains("`…@h`") && error.contains("consul, eureka, etcd, file"));
    }

    #[test]
    fn a_user_of_etcd_without_a_password_is_refused() {
        assert_eq!(
            name("etcd://me@h:2379").unwrap_err(),
            "etcd: the user has no password"
        );
        assert!(name("etcd://me:pa55@h:2379").is_ok());
    }

    proptest! {
        #[test]
        fn no_url_whatever_shows_its_password(
            scheme in "consul|consuls|eureka|etcd|file|nacos|",
            separator in ":|://|/|",
            user in "[a-z:/?#%]{0,4}",
            rest in "[a-z0-9:/,.%-]{0,12}",
        ) {
            let url = format!("{scheme}{separator}{user}:S3CRET@{rest}");
            // A path is no URL that could have one.
            prop_assume!(scheme != "file");
            match name(&url) {
                Ok(text) | Err(text) => prop_assert!(!text.contains("S3CRET"), "{text}"),
            }
        }
    }
}
