use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use buttress::BoxError;
use buttress::layers::fallback::FallbackLayer;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::calls::Calls;
use crate::services::Price;
use crate::stats::Path;

/// Asks what a trip costs. Protected, it is the last price for the same distance if pricing cannot be asked.
#[derive(Clone)]
pub struct Prices {
    calls: Calls,
    protected: BoxCloneSyncService<u64, Price, BoxError>,
}

type Cache = Arc<Mutex<HashMap<u64, Price>>>;

impl Prices {
    pub fn new(calls: Calls) -> Self {
        let cache = Cache::default();
        let asking = {
            let (calls, cache) = (calls.clone(), cache.clone());
            service_fn(move |km| {
                let (calls, cache) = (calls.clone(), cache.clone());
                async move {
                    let price = ask(&calls, Path::Protected, km).await?;
                    cache
                        .lock()
                        .expect("nobody panics under it")
                        .insert(km, price);
                    Ok(price)
                }
            })
        };
        let last_price = move |km, failed: Result<Price, BoxError>| {
            let cache = cache.lock().expect("nobody panics under it");
            cache.get(&km).copied().map_or(failed, Ok)
        };
        let fallback = FallbackLayer::from_request(|km: &u64| *km, last_price)
            .name("prices")
            .observe(calls.stats.clone());
        let protected = ServiceBuilder::new().layer(fallback).service(asking);
        Self {
            calls,
            protected: BoxCloneSyncService::new(protected),
        }
    }

    pub async fn price(&self, path: Path, km: u64) -> Result<Price, BoxError> {
        match path {
            Path::Protected => self.protected.clone().oneshot(km).await,
            Path::Plain => ask(&self.calls, path, km).await,
        }
    }
}

async fn ask(calls: &Calls, path: Path, km: u64) -> Result<Price, BoxError> {
    let url = format!("http://pricing/prices/{km}");
    Ok(calls.get(path, url).await?.json().await?)
}
