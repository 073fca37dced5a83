use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Client;
use tokio::sync::watch;

use super::link::Link;
use crate::observe::Observer;

/// A Redis server that keeps limits. Clones share one connection, which is made at the first call.
///
/// Neither its `Debug`, nor errors, nor events show the password of its URL.
#[derive(Clone)]
pub struct Redis {
    pub(super) settings: Arc<Settings>,
    pub(super) link: Arc<watch::Sender<Link>>,
}

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) client: Client,
    pub(super) name: Arc<str>,
    pub(super) prefix: Arc<str>,
    pub(super) timeout: Duration,
    pub(super) observer: Observer,
}

impl Redis {
    /// The server at `url`: `redis://user:password@host:6379/0`, where all but the host may be left out, or
    /// `unix:///path`. With the feature `tokio-rustls-comp` of the crate `redis`, `rediss://` is TLS. Redis 6 or later, or
    /// what speaks its language; not a cluster.
    ///
    /// # Errors
    ///
    /// [`BadUrl`] if it cannot be read.
    pub fn new(url: &str) -> Result<Self, BadUrl> {
        let client = Client::open(url).map_err(|_| BadUrl)?;
        let info = client.get_connection_info();
        let name = format!("redis at {}/{}", info.addr(), info.redis_settings().db());
        Ok(Self {
            settings: Arc::new(Settings {
                client,
                name: name.into(),
                prefix: "buttress".into(),
                timeout: TIMEOUT,
                observer: Observer::default(),
            }),
            link: Arc::new(watch::Sender::new(Link::default())),
        })
    }

    /// How long a call waits for the server's answer at most. What takes longer counts as an outage. Default 100 ms: a
    /// hundred times what a server nearby takes, and what most calls can bear once.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(!timeout.is_zero(), "no server answers in no time");
        Arc::make_mut(&mut self.settings).timeout = timeout;
        self
    }

    /// What the keys begin with, before a colon. Default `buttress`. Systems that share a server and not their limits
    /// each take one of their own.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.settings).prefix = prefix.into();
        self
    }

    /// Tells `observer` when the server fails and when it is back.
    #[must_use]
    pub fn observe(mut self, observer: impl Into<Observer>) -> Self {
        Arc::make_mut(&mut self.settings).observer = observer.into();
        self
    }

    /// What and where it is: `redis at 127.0.0.1:6379/0`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Whether the last call had an answer from it. False before the first.
    pub fn is_up(&self) -> bool {
        self.link.borrow().is_up()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}

/// The URL of a Redis server that cannot be read. It is not repeated, for it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadUrl;

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the URL of a Redis server cannot be read; it must look like `redis://user:password@host:6379/0` \
             (`rediss://` needs the crate `redis` with TLS)",
        )
    }
}

impl Error for BadUrl {}

const TIMEOUT: Duration = Duration::from_millis(100);
