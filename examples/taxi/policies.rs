use std::sync::Arc;
use std::time::Duration;

use buttress::algo::backoff::Backoff;
use buttress::client::Policy;
use buttress::transport::http::HttpRules;
use buttress::transport::reqwest::Client;
use buttress::{Registry, Resolver};
use reqwest::StatusCode;

use crate::calls::Calls;
use crate::fleet::SERVICES;
use crate::plain::PlainClient;
use crate::stats::Stats;

/// What a process calls its peers with, both ways.
pub fn calls(registry: Arc<dyn Registry>, stats: Arc<Stats>) -> Calls {
    let resolver = Resolver::new(registry);
    let watches = SERVICES.map(|service| (service, resolver.watch(service)));
    let backoff =
        Backoff::exponential(Duration::from_millis(10), 2.0).cap(Duration::from_millis(100));
    // The services answer within 30 ms.
    let peers = Policy::new()
        .timeout(Duration::from_secs(1))
        .attempt_timeout(Duration::from_millis(100))
        .backoff(backoff.clone());
    // A trip takes three of their answers.
    let trips = Policy::new()
        .timeout(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(400))
        .backoff(backoff);
    let protected = Client::new(reqwest::Client::new(), resolver)
        .default_policy(peers)
        .policy("trips", trips)
        // Here a 500 is the fault of an instance, not of what it was asked.
        .http_rules(HttpRules::new().retry_status(StatusCode::INTERNAL_SERVER_ERROR))
        .observe(stats.clone());
    Calls {
        protected,
        plain: Arc::new(PlainClient::new(watches)),
        stats,
    }
}
