use std::time::Duration;

use reqwest::header::HeaderMap;

/// What to ask for, and what to make of the answer's age.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) filter: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) datacenter: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) partition: Option<String>,
    /// The name of the address that is wanted.
    pub(super) address: Option<String>,
    pub(super) reads: Reads,
}

/// Who may answer, and how old that may be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Reads {
    /// The leader, or one that was sure to be it a moment ago.
    #[default]
    Default,
    /// Any server.
    Stale(Duration),
    /// The agent.
    Cached(Duration),
}

impl Query {
    /// What goes with every request.
    pub(super) fn place(&self) -> Vec<(&'static str, &str)> {
        let namespace = self.namespace.iter().map(|name| ("ns", &**name));
        let partition = self.partition.iter().map(|name| ("partition", &**name));
        namespace.chain(partition).collect()
    }

    /// What goes with a question for instances.
    pub(super) fn read(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if let Some(filter) = self.filter() {
            query.push(("filter", filter));
        }
        query.extend(self.datacenter.clone().map(|name| ("dc", name)));
        let place = self.place().into_iter();
        query.extend(place.map(|(key, name)| (key, name.to_owned())));
        match self.reads {
            Reads::Default => {}
            Reads::Stale(_) => query.push(("stale", String::new())),
            Reads::Cached(_) => query.push(("cached", String::new())),
        }
        query
    }

    /// All conditions in one.
    fn filter(&self) -> Option<String> {
        // Consul reads strings as Go does, which is as JSON has them.
        let quoted = |tag: &String| serde_json::Value::from(tag.as_str()).to_string();
        let tags = self.tags.iter();
        let mut parts: Vec<_> = tags
            .map(|tag| format!("{} in Service.Tags", quoted(tag)))
            .collect();
        if let Some(filter) = &self.filter {
            let alone = parts.is_empty();
            parts.insert(
                0,
                if alone {
                    filter.clone()
                } else {
                    format!("({filter})")
                },
            );
        }
        (!parts.is_empty()).then(|| parts.join(" and "))
    }

    /// Why an answer may be behind the times, if it may be.
    pub(super) fn doubt(&self, headers: &HeaderMap) -> Option<String> {
        let number = |name| header(headers, name).and_then(|text| text.parse::<u64>().ok());
        // Of the streaming backend, the header means nothing: it is always `false`.
        let is_led = header(headers, "x-consul-knownleader") != Some("false")
            || header(headers, "x-consul-query-backend") == Some("streaming");
        if !is_led {
            return Some("it has no leader".into());
        }
        let (age, oldest) = match self.reads {
            Reads::Default => return None,
            Reads::Stale(oldest) => {
                let age = number("x-consul-lastcontact").map(Duration::from_millis);
                (age, oldest)
            }
            Reads::Cached(oldest) => (number("age").map(Duration::from_secs), oldest),
        };
        let age = age.filter(|&age| age > oldest)?;
        Some(format!("its answer is {age:?} old"))
    }
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_joined_and_tags_are_quoted() {
        let table: [(Option<&str>, &[&str], Option<&str>); 5] = [
            (None, &[], None),
            (Some("a == b or c"), &[], Some("a == b or c")),
            (None, &["blue"], Some(r#""blue" in Service.Tags"#)),
            (
                Some("a or b"),
                &["x", "y"],
                Some(r#"(a or b) and "x" in Service.Tags and "y" in Service.Tags"#),
            ),
            (
                None,
                &[r#"a" or "b\"#],
                Some(r#""a\" or \"b\\" in Service.Tags"#),
            ),
        ];
        for (filter, tags, expected) in table {
            let query = Query {
                filter: filter.map(Into::into),
                tags: tags.iter().map(|&tag| tag.into()).collect(),
                ..Query::default()
            };
            assert_eq!(query.filter().as_deref(), expected);
        }
    }

    #[test]
    fn an_answer_is_doubted_without_a_leader_or_when_it_is_too_old() {
        let limit = Duration::from_secs(5);
        let (stale, cached) = (Reads::Stale(limit), Reads::Cached(limit));
        type Headers = &'static [(&'static str, &'static str)];
        let table: [(Reads, Headers, bool); 10] = [
            (Reads::Default, &[], false),
            (Reads::Default, &[("x-consul-knownleader", "false")], true),
            (Reads::Default, &[("x-consul-lastcontact", "99999")], false),
            (stale, &[("x-consul-lastcontact", "5000")], false),
            (stale, &[("x-consul-lastcontact", "5001")], true),
            (stale, &[("x-consul-lastcontact", "?")], false),
            (cached, &[("age", "0"), ("x-cache", "HIT")], false),
            (cached, &[("age", "6")], true),
            (cached, &[], false),
            (
                cached,
                &[
                    ("x-consul-knownleader", "false"),
                    ("x-consul-query-backend", "streaming"),
                ],
                false,
            ),
        ];
        for (reads, headers, doubted) in table {
            let query = Query {
                reads,
                ..Query::default()
            };
            let map = headers.iter().map(|&(name, value)| {
                let name = reqwest::header::HeaderName::from_static(name);
                (name, reqwest::header::HeaderValue::from_static(value))
            });
            let doubt = query.doubt(&map.collect());
            assert_eq!(doubt.is_some(), doubted, "{reads:?} {headers:?} {doubt:?}");
        }
    }
}
