use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::{Certificate, ClientBuilder};
use secrecy::{ExposeSecret, SecretString};

use super::credentials::Credentials;
use super::source::shown;

/// What follows the scheme, and what else is known.
pub(super) struct Place<'a> {
    pub(super) secure: bool,
    /// As it was written.
    pub(super) url: &'a str,
    pub(super) rest: &'a str,
    pub(super) ca: Vec<Certificate>,
    pub(super) credentials: &'a Credentials,
}

impl Place<'_> {
    /// The scheme of HTTP for it.
    pub(super) fn http(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// The URLs of its servers, which are separated by commas and share the user, the password and the path.
    pub(super) fn urls(&self) -> Result<String, String> {
        let (at, login) = self.login()?;
        let (servers, path) = at.split_at(at.find('/').unwrap_or(at.len()));
        let login = login.map_or_else(String::new, |(name, password)| {
            let [name, password] = [&*name, password.expose_secret()].map(encoded);
            format!("{name}:{password}@")
        });
        let urls: Vec<_> = (servers.split(','))
            .map(|server| format!("{}://{login}{server}{path}", self.http()))
            .collect();
        Ok(urls.join(","))
    }

    pub(super) fn client(&self) -> ClientBuilder {
        // A registry is a neighbour: the proxies of the environment are for what is far away.
        let builder = ClientBuilder::new().no_proxy();
        builder.tls_certs_merge(self.ca.iter().cloned())
    }

    /// What stands after the user, and the user and password of the URL or else of the environment.
    pub(super) fn login(&self) -> Result<(&str, Option<Login>), String> {
        let (user, rest) = self.rest.rsplit_once('@').unwrap_or(("", self.rest));
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let name = match name {
            "" => self.credentials.user.clone(),
            name => Some(decoded(name)),
        };
        let password = match password {
            "" => self.credentials.password.clone(),
            password => Some(decoded(password).into()),
        };
        match (name, password) {
            (Some(name), Some(password)) => Ok((rest, Some((name, password)))),
            (Some(_), None) => Err(format!("`{}`: the user has no password", shown(self.url))),
            (None, Some(_)) if !user.is_empty() => {
                Err(format!("`{}`: the password has no user", shown(self.url)))
            }
            (None, _) => Ok((rest, None)),
        }
    }

    /// All of it, where it has no user.
    pub(super) fn nobody(&self) -> Result<&str, String> {
        match self.rest.contains('@') {
            true => Err(format!("`{}`: it knows no users", shown(self.url))),
            false => Ok(self.rest),
        }
    }

    /// `rest` before its `?`, and what it says after that of `name`, which is all that it may say.
    pub(super) fn option<'r>(
        &self,
        rest: &'r str,
        name: &str,
    ) -> Result<(&'r str, Option<String>), String> {
        let Some((rest, query)) = rest.split_once('?') else {
            return Ok((rest, None));
        };
        match query.split_once('=') {
            Some((key, value)) if key == name => Ok((rest, Some(decoded(value)))),
            _ => Err(format!("`{}`: after its ? goes {name}=…", shown(self.url))),
        }
    }
}

/// A user and the password.
type Login = (String, SecretString);

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
