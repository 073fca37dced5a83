use std::time::{Duration, Instant};

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::Redis;
use super::script::{Answer, Debt, Question};
use crate::algo::backoff::{Backoff, Jitter, Waits};
use crate::algo::gcra::Limit;
use crate::clock;
use crate::observe::Event;
use crate::rng::ThreadRng;

/// The connection to a server, or what became of it.
#[derive(Default)]
pub(super) struct Link {
    state: State,
    waits: Waits,
    /// Of the connection, so that an old one's end is not taken for that of a new one.
    id: u64,
}

// New -> First -> Up -> Down -> Trying -> Up or Down. Calls wait for the first connection and for no later one.
#[derive(Default)]
enum State {
    #[default]
    New,
    First,
    Up(MultiplexedConnection),
    Down {
        until: Instant,
    },
    Trying,
}

/// The server cannot be asked; with how long until it is tried again, where that is known.
#[derive(Debug)]
pub(super) struct Unavailable(pub(super) Option<Duration>);

impl Link {
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    fn connection(&self) -> Option<(MultiplexedConnection, u64)> {
        match &self.state {
            State::Up(connection) => Some((connection.clone(), self.id)),
            _ => None,
        }
    }

    /// Whether it falls to the caller to try the server.
    fn begin(&mut self, now: Instant) -> bool {
        self.state = match self.state {
            State::New => State::First,
            State::Down { until } if until <= now => State::Trying,
            _ => return false,
        };
        true
    }

    fn fail(&mut self, now: Instant) -> Duration {
        let backoff = Backoff::constant(SHORTEST).cap(LONGEST);
        let backoff = backoff.jitter(Jitter::Decorrelated);
        let wait = backoff.next(&mut self.waits, &mut ThreadRng);
        let until = clock::after(now, wait);
        self.state = State::Down { until };
        wait
    }
}

impl Redis {
    /// Asks the server, for as long as the time-out lets it.
    pub(super) async fn ask(&self, question: &Question) -> Result<Answer, Unavailable> {
        let end = clock::after(clock::now(), self.settings.timeout);
        let Some((mut connection, id)) = self.connection(end).await else {
            return Err(self.unavailable());
        };
        let asked = self.in_time(end, question.ask(&mut connection));
        asked.await.map_err(|error| {
            self.lost(id, &error);
            self.unavailable()
        })
    }

    /// Puts permits back, if that can be done.
    pub(super) fn give_back(&self, key: String, debt: Debt) {
        let (connection, runtime) = (
            self.link.borrow().connection(),
            tokio::runtime::Handle::try_current(),
        );
        let (Some((mut connection, _)), Ok(runtime)) = (connection, runtime) else {
            return;
        };
        let redis = self.clone();
        runtime.spawn(async move {
            let end = clock::after(clock::now(), redis.settings.timeout);
            let given = debt.give_back(&key, &mut connection);
            // Not worth more than one attempt: what is not given back is paid by time.
            let _ = redis.in_time(end, given).await;
        });
    }

    /// The connection, which is waited for until `end` if it is the first.
    async fn connection(&self, end: Instant) -> Option<(MultiplexedConnection, u64)> {
        let known = self.link.borrow().connection();
        if known.is_some() {
            return known;
        }
        let mut begins = false;
        self.link.send_if_modified(|link| {
            begins = link.begin(clock::now());
            false
        });
        if begins {
            let attempt = Attempt {
                redis: self.clone(),
            };
            tokio::spawn(attempt.run());
        }
        let mut link = self.link.subscribe();
        let decided = link.wait_for(|link| !matches!(link.state, State::First));
        tokio::select! {
            biased;
            _ = decided => {}
            () = clock::until(end) => self.wait_no_more(),
        }
        self.link.borrow().connection()
    }

    fn unavailable(&self) -> Unavailable {
        Unavailable(match self.link.borrow().state {
            State::Down { until } => Some(until.saturating_duration_since(clock::now())),
            _ => None,
        })
    }

    /// The first connection takes longer than a call may: the next ones go on without it.
    fn wait_no_more(&self) {
        self.link.send_if_modified(|link| {
            let first = matches!(link.state, State::First);
            if first {
                link.state = State::Trying;
            }
            first
        });
    }

    /// Connection `id` failed. The first to notice tells.
    fn lost(&self, id: u64, error: &str) {
        let mut wait = None;
        self.link.send_if_modified(|link| {
            let current = link.is_up() && link.id == id;
            if current {
                wait = Some(link.fail(clock::now()));
            }
            current
        });
        if let Some(wait) = wait {
            self.tell_failure(error, wait);
        }
    }

    fn tell_failure(&self, error: &str, wait: Duration) {
        self.settings.observer.emit(&Event::StoreFailed {
            store: &self.settings.name,
            error,
            wait,
        });
    }

    /// `asked`, unless it takes longer than until `end`. An error is told in words, and without the password.
    async fn in_time<T>(
        &self,
        end: Instant,
        asked: impl Future<Output = Result<T, redis::RedisError>>,
    ) -> Result<T, String> {
        let error = tokio::select! {
            biased;
            result = asked => match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error.to_string(),
            },
            () = clock::until(end) => "no answer in time".to_owned(),
        };
        let info = self.settings.client.get_connection_info();
        let mut password = info.redis_settings().password().into_iter();
        if password.any(|it| !it.is_empty() && error.contains(it)) {
            return Err("an error that repeats the password".to_owned());
        }
        Err(error)
    }
}

/// An attempt on the server: a connection, and a question of no consequence, so that no call has to find out whether
/// scripts run and keys are written.
struct Attempt {
    redis: Redis,
}

impl Attempt {
    async fn run(self) {
        let redis = &self.redis;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let client = &redis.settings.client;
        let end = clock::after(clock::now(), CONNECT);
        let opened = redis.in_time(end, async {
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            let question = Question {
                key: format!("{}:attempt", redis.settings.prefix),
                limit: Limit::new(1, Duration::from_micros(1)),
                cost: 1,
                longest: CONNECT,
            };
            question.ask(&mut connection).await?;
            Ok(connection)
        });
        match opened.await {
            Ok(connection) => self.succeed(connection),
            Err(error) => self.fail(&error),
        }
    }

    fn succeed(&self, connection: MultiplexedConnection) {
        let mut failed_before = false;
        self.redis.link.send_modify(|link| {
            failed_before = link.waits != Waits::default();
            link.state = State::Up(connection);
            link.id += 1;
            link.waits = Waits::default();
        });
        if failed_before {
            let store = &self.redis.settings.name;
            let event = Event::StoreRecovered { store };
            self.redis.settings.observer.emit(&event);
        }
    }

    fn fail(&self, error: &str) {
        let mut wait = None;
        self.redis.link.send_if_modified(|link| {
            let under_way = matches!(link.state, State::First | State::Trying);
            if under_way {
                wait = Some(link.fail(clock::now()));
            }
            under_way
        });
        if let Some(wait) = wait {
            self.redis.tell_failure(error, wait);
        }
    }
}

impl Drop for Attempt {
    // Its runtime may end before it does.
    fn drop(&mut self) {
        self.fail("the attempt was broken off");
    }
}

/// As short as a fail-over can be: until then calls go by a limit of their own.
const SHORTEST: Duration = Duration::from_millis(100);
/// What is asked of a server that is gone is one connection each five seconds.
const LONGEST: Duration = Duration::from_secs(5);
/// No call waits for this one.
const CONNECT: Duration = Duration::from_secs(2);
