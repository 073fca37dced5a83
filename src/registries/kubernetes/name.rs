/// A Service as it is called: `orders`, `orders.shop`, `orders.shop.svc` or `orders.shop.svc.cluster.local`.
#[derive(Debug, PartialEq)]
pub(super) struct ServiceName {
    pub(super) service: String,
    /// The caller's own, if it is not named.
    pub(super) namespace: Option<String>,
}

impl ServiceName {
    /// Nothing if no Service can be called that.
    pub(super) fn new(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let labels: Vec<_> = name.split('.').collect();
        if !labels.iter().all(|label| is_label(label)) {
            return None;
        }
        let (service, namespace) = match labels[..] {
            [service] => (service, None),
            [service, namespace] | [service, namespace, "svc", ..] => (service, Some(namespace)),
            _ => return None,
        };
        Some(Self {
            service: service.to_owned(),
            namespace: namespace.map(str::to_owned),
        })
    }
}

/// As RFC 1123 has it, which is also what keeps a name from becoming another selector.
pub(super) fn is_label(label: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LONGEST).contains(&label.len())
        && label.bytes().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

const LONGEST: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_say_the_namespace_as_dns_has_it() {
        for (name, service, namespace) in [
            ("orders", "orders", None),
            ("Orders", "orders", None),
            ("orders.shop", "orders", Some("shop")),
            ("orders.shop.svc", "orders", Some("shop")),
            ("orders.shop.svc.cluster.local", "orders", Some("shop")),
        ] {
            let expected = ServiceName {
                service: service.into(),
                namespace: namespace.map(Into::into),
            };
            assert_eq!(ServiceName::new(name), Some(expected), "{name}");
        }
    }

    #[test]
    fn what_no_service_can_be_called_is_none() {
        let long = "a".repeat(64);
        for name in [
            "",
            ".",
            "orders.",
            ".shop",
            "a..b",
            "a.b.c",
            "api.example.com",
            "a,b",
            "a=b",
            "!a",
            "a b",
            "a/b",
            "-a",
            "a-",
            "é",
            "a_b",
            &long,
        ] {
            assert_eq!(ServiceName::new(name), None, "{name}");
        }
    }
}
