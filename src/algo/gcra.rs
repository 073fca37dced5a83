//! The generic cell rate algorithm: at most so many permits a period, and at most a burst of them at once.
//!
//! A [`Bucket`] is kept in the form of the continuous-state leaky bucket (ITU-T I.371, annex A): what was taken is a
//! debt that time pays back. It says to the nanosecond when there will be permits, and lets them be taken ahead of
//! that time. A limit that is [`sliding`](Limit::sliding) is paid call by call, each a period after it went. And it can be
//! [paused](Bucket::pause), for a peer that says when to come back.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use buttress::algo::gcra::{Bucket, Limit};
//!
//! # fn at_some_time(now: Instant) {
//! let mut bucket = Bucket::new(Limit::new(10, Duration::from_secs(1)).burst(2), now);
//! bucket.take(2, now);
//! assert_eq!(bucket.due(1, now), now + Duration::from_millis(100));
//! # }
//! # at_some_time(buttress::clock::now());
//! ```

mod bucket;
mod limit;
mod log;
mod pause;
mod shared;
mod warm_up;

pub use bucket::Bucket;
pub use limit::Limit;
