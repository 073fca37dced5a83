use super::Consul;
use crate::discovery::RegistryError;

/// As `variable` has it.
pub(super) fn consul(variable: impl Fn(&str) -> Option<String>) -> Result<Consul, RegistryError> {
    let variable = |name| variable(name).filter(|value| !value.is_empty());
    let addresses = variable("CONSUL_HTTP_ADDR").unwrap_or_else(|| LOCAL.into());
    let scheme = match variable("CONSUL_HTTP_SSL").as_deref() {
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => "https",
        _ => "http",
    };
    let urls = addresses.split(',').map(|address| match address.trim() {
        url if url.contains("://") => url.to_owned(),
        address => format!("{scheme}://{address}"),
    });
    let mut consul = Consul::new(&urls.collect::<Vec<_>>().join(","))?;
    if let Some(path) = variable("CONSUL_HTTP_TOKEN_FILE") {
        consul = consul.token_file(path);
    } else if let Some(token) = variable("CONSUL_HTTP_TOKEN") {
        consul = consul.token(token);
    }
    if let Some(namespace) = variable("CONSUL_NAMESPACE") {
        consul = consul.namespace(namespace);
    }
    if let Some(partition) = variable("CONSUL_PARTITION") {
        consul = consul.partition(partition);
    }
    Ok(consul)
}

const LOCAL: &str = "127.0.0.1:8500";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{ErrorKind, Registry};
    use crate::registries::consul::agents::Token;

    fn with(variables: &[(&str, &str)]) -> Result<Consul, RegistryError> {
        consul(|name| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn the_environment_names_agents_as_consuls_own_tools_read_it() {
        let local = "consul at http://127.0.0.1:8500";
        let table: [(&[(&str, &str)], &str); 6] = [
            (&[], local),
            (&[("CONSUL_HTTP_ADDR", "")], local),
            (&[("CONSUL_HTTP_ADDR", "c:1")], "consul at http://c:1"),
            (
                &[("CONSUL_HTTP_ADDR", "c:1"), ("CONSUL_HTTP_SSL", "true")],
                "consul at https://c:1",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "http://c:1"), ("CONSUL_HTTP_SSL", "1")],
                "consul at http://c:1",
            ),
            (
                &[("CONSUL_HTTP_ADDR", "c:1, https://d:2")],
                "consul at http://c:1, https://d:2",
            ),
        ];
        for (variables, name) in table {
            assert_eq!(with(variables).unwrap().name(), name);
        }
        let error = with(&[("CONSUL_HTTP_ADDR", "unix:///run/consul.sock")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_file_with_a_token_goes_before_the_token() {
        let consul = with(&[
            ("CONSUL_HTTP_TOKEN", "t"),
            ("CONSUL_HTTP_TOKEN_FILE", "/run/token"),
            ("CONSUL_NAMESPACE", "n"),
            ("CONSUL_PARTITION", "p"),
        ])
        .unwrap();
        assert!(matches!(consul.agents.token, Some(Token::File(_))));
        assert_eq!(consul.query.place(), [("ns", "n"), ("partition", "p")]);
        let consul = with(&[("CONSUL_HTTP_TOKEN", "t")]).unwrap();
        assert!(matches!(consul.agents.token, Some(Token::Text(_))));
    }
}
