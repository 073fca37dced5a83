//! A rate limit that processes share, kept in Redis. See the [guide](crate::docs::layers::rate_limit#a-limit-that-processes-share).
//!
//! [`Redis`] is the server, one connection for as many limits as there are; a [`SharedLimiter`] is one limit, for all
//! calls or for each key, with the settings and the layer of a
//! [`RateLimiter`](crate::layers::rate_limit::RateLimiter). The decision is one step on the server and by the server's
//! clock, so the processes' own clocks play no part. No call waits for a server that is slow or gone: until it is back,
//! each process goes by a limit of its own, or refuses.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::algo::gcra::Limit;
//! use buttress::transport::redis::{Redis, SharedLimiter};
//! use buttress::BoxError;
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let redis = Redis::new("redis://127.0.0.1:9").expect("a URL");
//! let limit = Limit::new(100, Duration::from_secs(1));
//! let limiter = SharedLimiter::new("geocoder", limit, &redis).processes(4);
//! let service = ServiceBuilder::new()
//!     .layer(limiter.layer())
//!     .service_fn(|_: ()| async { Ok::<_, BoxError>("here") });
//!
//! // Nobody listens there, so this process has its share: 25 a second.
//! assert_eq!(service.oneshot(()).await.unwrap(), "here");
//! assert!(!redis.is_up());
//! # }
//! ```

mod limiter;
mod link;
mod script;
mod server;

pub use limiter::{Acquire, SharedLimiter};
pub use server::{BadUrl, Redis};
