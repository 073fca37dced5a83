//! A limit on how many calls there are in a time. See the [guide](crate::docs::layers::rate_limit).
//!
//! A [`RateLimiter`] has a [`Limit`](crate::algo::gcra::Limit): so many permits a period, and so many at once. A call that comes too early is
//! refused at once and told when its permits would be there, or, with [`wait`](RateLimiter::wait), waits for them if
//! that is not too long. The limit is one for all calls, or one for each key; a request may take several permits. It
//! can change while calls flow, and be paused; a layer does that by itself where its peer
//! [says when to come back](RateLimitLayer::classify).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! use std::time::Duration;
//! use buttress::algo::gcra::Limit;
//! use buttress::layers::rate_limit::RateLimiter;
//! use buttress::{BoxError, Rejected};
//! use tower::{Service, ServiceBuilder, ServiceExt};
//!
//! let limiter = RateLimiter::new("geocoder", Limit::new(10, Duration::from_secs(1)).burst(1));
//! let mut service = ServiceBuilder::new()
//!     .layer(limiter.layer())
//!     .service_fn(|_: ()| async { Ok::<_, BoxError>("here") });
//!
//! assert_eq!(service.ready().await.unwrap().call(()).await.unwrap(), "here");
//! let error = service.ready().await.unwrap().call(()).await.unwrap_err();
//! let rejected = Rejected::find(&*error).unwrap();
//! assert_eq!(rejected.wait_hint(), Some(Duration::from_millis(100)));
//! # }
//! ```

mod acquire;
mod future;
mod handle;
mod heed;
mod layer;
mod limits;
mod line;
mod lines;
mod service;
mod settings;

pub use acquire::Acquire;
pub use future::RateLimitFuture;
pub use handle::RateLimiter;
pub use heed::{HeedFuture, HeedService};
pub use layer::{Ask, By, Costing, Everyone, Heeding, Limiter, RateLimitLayer, Unheeded};
pub use limits::LimitOf;
pub use service::RateLimitService;
