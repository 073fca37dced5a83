use std::path::PathBuf;
use std::{env, fs};

use secrecy::{ExposeSecret, SecretString};

/// What the registries ask for before they answer, from the environment. It is shown nowhere.
#[derive(Default)]
pub(super) struct Credentials {
    pub(super) token: Option<SecretString>,
    /// Where the token comes from, if it comes from a file: it may be replaced while we run.
    pub(super) token_file: Option<PathBuf>,
    /// What Consul's own tools go by.
    pub(super) consul_token: Option<SecretString>,
    pub(super) user: Option<String>,
    pub(super) password: Option<SecretString>,
}

impl Credentials {
    /// Those in variables, or in files that variables name, or what is wrong with them.
    pub(super) fn from_environment() -> Result<Self, String> {
        let user = read("BUTTRESS_USER")?;
        Ok(Self {
            token: read(TOKEN)?,
            token_file: env::var_os(TOKEN).is_none().then(|| file(TOKEN)).flatten(),
            consul_token: read("CONSUL_HTTP_TOKEN")?,
            user: user.map(|user| user.expose_secret().to_owned()),
            password: read("BUTTRESS_PASSWORD")?,
        })
    }
}

/// The variable `name`, or else the file that `name` with `_FILE` names.
fn read(name: &str) -> Result<Option<SecretString>, String> {
    if let Some(value) = env::var_os(name) {
        let value = value.into_string();
        let value = value.map_err(|_| format!("{name} is no text"))?;
        return Ok((!value.is_empty()).then(|| value.into()));
    }
    let Some(path) = file(name) else {
        return Ok(None);
    };
    let text = fs::read_to_string(&path);
    let text = text.map_err(|error| format!("{name}_FILE = {}: {error}", path.display()))?;
    Ok(Some(text.trim().into()))
}

/// The file that `name` with `_FILE` names.
fn file(name: &str) -> Option<PathBuf> {
    let path = env::var_os(format!("{name}_FILE")).map(PathBuf::from);
    path.filter(|path| !path.as_os_str().is_empty())
}

const TOKEN: &str = "BUTTRESS_TOKEN";
