//! From the name of a service to the names to ask for.

use hickory_resolver::proto::rr::Name;

/// A DNS name with a place for the name of a service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template {
    before: String,
    after: String,
}

impl Template {
    /// Reads `text`, which has the place as `{}`. The error says what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("`{text}` {what}, such as `{{}}.shop.example.org`");
        let parts: Vec<_> = text.split("{}").collect();
        let [before, after] = parts[..] else {
            return Err(wrong("must have one `{}` for the name of the service"));
        };
        let template = Self {
            before: before.into(),
            after: after.into(),
        };
        match template.name("a") {
            Ok(_) => Ok(template),
            Err(_) => Err(wrong("must make a DNS name")),
        }
    }

    /// The name for `service`, which is absolute if it ends with a dot.
    pub(super) fn name(&self, service: &str) -> Result<Name, String> {
        let text = format!("{}{service}{}", self.before, self.after);
        match Name::from_str_relaxed(&text) {
            Ok(name) if !service.is_empty() => Ok(name),
            Ok(_) => Err("the name of the service is empty".into()),
            Err(error) => Err(format!("`{text}` is no DNS name: {error}")),
        }
    }
}

/// The absolute names that `name` may stand for, as resolv.conf has it: with each of the `search`ed domains, after the
/// name itself if that has as many dots as `ndots`, and before it otherwise.
pub(super) fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let absolute = |mut name: Name| {
        name.set_fqdn(true);
        name
    };
    let itself = absolute(name.clone());
    if name.is_fqdn() {
        return vec![itself];
    }
    // Beyond 255 octets there is no such name.
    let within = |domain| name.clone().append_domain(domain).ok().map(absolute);
    let mut names: Vec<_> = search.iter().filter_map(within).collect();
    let dots = name.iter().len().saturating_sub(1);
    let at = if dots >= ndots { 0 } else { names.len() };
    names.insert(at, itself);
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_service_takes_its_place_in_the_template() {
        for (template, service, name) in [
            ("{}", "orders", "orders"),
            ("{}.", "orders", "orders."),
            ("{}.shop.example.org", "orders", "orders.shop.example.org"),
            ("_http._tcp.{}.shop", "orders", "_http._tcp.orders.shop"),
            ("_{}._tcp.shop.", "orders", "_orders._tcp.shop."),
            (
                "{}.svc.cluster.local",
                "orders.shop",
                "orders.shop.svc.cluster.local",
            ),
            ("{}.shop", "order_s", "order_s.shop"),
        ] {
            let found = Template::new(template).unwrap().name(service).unwrap();
            assert_eq!(found.to_string(), name, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_or_no_name_is_refused() {
        for template in [
            "",
            "orders.shop",
            "{}.{}",
            "{}..shop",
            "{}.a b",
            &"a".repeat(64),
        ] {
            let error = Template::new(template).unwrap_err();
            assert!(error.contains(&format!("`{template}` must")), "{error}");
        }
        let template = Template::new("{}.shop").unwrap();
        for service in [
            "",
            "a b",
            "a..b",
            "a.",
            ".",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            assert!(template.name(service).is_err(), "{service}");
        }
    }

    #[test]
    fn relative_names_are_searched_for_as_resolv_conf_says() {
        let search = ["shop.svc.cluster.local", "svc.cluster.local"];
        let search: Vec<_> = search
            .map(|domain| Name::from_str_relaxed(domain).unwrap())
            .into();
        for (name, ndots, expected) in [
            (
                "orders",
                5,
                "orders.shop.svc.cluster.local. orders.svc.cluster.local. orders.",
            ),
            (
                "orders.shop",
                1,
                "orders.shop. orders.shop.shop.svc.cluster.local. orders.shop.svc.cluster.local.",
            ),
            ("orders.shop.svc.", 5, "orders.shop.svc."),
        ] {
            let name = Name::from_str_relaxed(name).unwrap();
            let names = candidates(&name, &search, ndots);
            let names: Vec<_> = names.iter().map(Name::to_string).collect();
            assert_eq!(names.join(" "), expected);
            assert_eq!(candidates(&name, &[], ndots).len(), 1);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(template in ".{0,80}", service in ".{0,300}", ndots in 0..20_usize) {
            let templates = [Template::new(&template), Template::new(&format!("{{}}.{template}"))];
            for template in templates.into_iter().flatten() {
                if let Ok(name) = template.name(&service) {
                    for name in candidates(&name, std::slice::from_ref(&name), ndots) {
                        prop_assert!(name.is_fqdn());
                    }
                }
            }
        }
    }
}
