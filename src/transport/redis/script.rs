use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, Script, ServerErrorKind, cmd};

use crate::algo::gcra::Limit;

/// What a store is asked: for so many permits under a limit.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) key: String,
    pub(super) limit: Limit,
    pub(super) cost: u32,
    /// How long the permits may be ahead of their time.
    pub(super) longest: Duration,
}

/// What it says.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// The permits are taken, and may be used in so long.
    Taken { wait: Duration, debt: Debt },
    /// They would be there in so long.
    Denied { wait: Duration },
}

/// What was written and what was there before, as the script writes it: enough to put permits back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Debt {
    new: String,
    old: String,
}

impl Question {
    pub(super) async fn ask(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Answer, RedisError> {
        self.run(&TAKE, &self.arguments(), connection).await
    }

    fn arguments(&self) -> Vec<String> {
        let (cost, cost_rest) = self.limit.worth(self.cost);
        let (credit, credit_rest) = self.limit.worth(self.limit.largest_burst());
        let arguments = [
            cost,
            cost_rest,
            credit,
            credit_rest,
            self.limit.parts().into(),
            self.limit.period_nanos(),
            self.longest.as_micros(),
        ];
        arguments.iter().map(u128::to_string).collect()
    }

    async fn run(
        &self,
        script: &Known,
        arguments: &[String],
        connection: &mut MultiplexedConnection,
    ) -> Result<Answer, RedisError> {
        let (taken, wait, new, old) = run(script, &self.key, arguments, connection).await?;
        let wait = Duration::from_micros(wait);
        Ok(match taken {
            true => Answer::Taken {
                wait,
                debt: Debt { new, old },
            },
            false => Answer::Denied { wait },
        })
    }
}

impl Debt {
    /// Puts the permits back, unless others were taken since: those go by what they found.
    pub(super) async fn give_back(
        self,
        key: &str,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        run(&GIVE_BACK, key, &[self.new, self.old], connection).await
    }
}

/// Runs a script that the server knows already, or tells it the script.
async fn run<T: redis::FromRedisValue>(
    script: &Known,
    key: &str,
    arguments: &[String],
    connection: &mut MultiplexedConnection,
) -> Result<T, RedisError> {
    let mut by_hash = cmd("EVALSHA");
    by_hash.arg(script.hash.get_hash()).arg(1).arg(key);
    match by_hash.arg(arguments).query_async(connection).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            let mut by_text = cmd("EVAL");
            by_text.arg(script.text).arg(1).arg(key).arg(arguments);
            by_text.query_async(connection).await
        }
        result => result,
    }
}

struct Known {
    text: &'static str,
    hash: Script,
}

impl Known {
    fn new(text: &'static str) -> Self {
        let hash = Script::new(text);
        Self { text, hash }
    }
}

static TAKE: LazyLock<Known> = LazyLock::new(|| Known::new(include_str!("take.lua")));
static GIVE_BACK: LazyLock<Known> = LazyLock::new(|| Known::new(include_str!("give_back.lua")));

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Instant;

    use redis::{AsyncCommands, Client};

    use super::*;
    use crate::algo::Rng;
    use crate::algo::gcra::Bucket;
    use crate::clock;
    use crate::rng::{self, ThreadRng};

    const SECOND: Duration = Duration::from_secs(1);

    /// The server of `REDIS_URL`, asked by the script at times that a test sets.
    struct Server {
        connection: MultiplexedConnection,
        script: Known,
        began: Instant,
    }

    impl Server {
        async fn connect() -> Option<Self> {
            let Some(url) = std::env::var("REDIS_URL").ok().filter(|it| !it.is_empty()) else {
                let _ = writeln!(
                    std::io::stderr(),
                    "left out: the script in Redis, since REDIS_URL is not set"
                );
                return None;
            };
            let client = Client::open(url).unwrap();
            // The keys live as long as the test's time may take.
            let text = TAKE
                .text
                .replace("redis.call('TIME')", "{ARGV[8], ARGV[9]}");
            let text = text.replace("debt / 1000", "60000");
            assert!(!text.contains("call('TIME')") && !text.contains("debt / 1000"));
            Some(Self {
                connection: client.get_multiplexed_async_connection().await.unwrap(),
                script: Known::new(text.leak()),
                began: clock::now(),
            })
        }

        async fn ask(&mut self, question: &Question, now: Instant) -> Answer {
            // As long after an epoch as a server's clock is.
            let at = Duration::from_secs(2_000_000_000) + (now - self.began);
            let time = [at.as_secs(), at.subsec_micros().into()];
            let mut arguments = question.arguments();
            arguments.extend(time.map(|it| it.to_string()));
            let answer = question.run(&self.script, &arguments, &mut self.connection);
            answer.await.unwrap()
        }
    }

    fn question(limit: Limit, longest: Duration) -> Question {
        Question {
            key: format!("buttress:test:{:x}", ThreadRng.next_u64()),
            limit,
            cost: 1,
            longest,
        }
    }

    fn up_to(most: u64) -> u64 {
        ThreadRng.next_u64() % (most + 1)
    }

    /// In whole microseconds, rounded up.
    fn micros(wait: Duration) -> Duration {
        Duration::from_micros(u64::try_from(wait.as_nanos().div_ceil(1000)).unwrap())
    }

    #[tokio::test]
    async fn the_script_decides_as_the_bucket_does() {
        let Some(mut server) = Server::connect().await else {
            return;
        };
        let limits = [
            Limit::new(1, SECOND),
            Limit::new(3, SECOND).burst(2),
            Limit::new(7, Duration::from_nanos(1_000_001)).burst(5),
            Limit::new(999_983, 86_400 * SECOND).burst(1_000),
            Limit::new(u32::MAX, SECOND).burst(u32::MAX),
            Limit::new(1, 86_400 * SECOND).burst(36_500),
        ];
        let seed = ThreadRng.next_u64();
        println!("seed {seed}");
        for limit in limits {
            let longest = 20 * SECOND;
            let mut question = question(limit, Duration::ZERO);
            let mut now = server.began;
            let mut bucket = Bucket::new(limit, now);
            let mut taken = 0;
            rng::seed(seed);
            for step in 0..400 {
                let interval = limit.period_nanos() / u128::from(limit.parts()) + 1;
                now += Duration::from_micros(up_to(u64::try_from(2 * interval).unwrap()));
                question.cost = 1 + up_to(u64::from(limit.largest_burst() / 3) + 1) as u32;
                question.longest = longest * u32::from(ThreadRng.next_u64() % 4 == 0);
                let wait = micros(bucket.due(question.cost.into(), now) - now);
                let before = bucket.clone();
                match server.ask(&question, now).await {
                    Answer::Taken { wait: told, debt } => {
                        assert_eq!(told, wait, "{limit:?} at step {step}");
                        assert!(wait <= question.longest, "{limit:?} at step {step}");
                        bucket.take(question.cost, now);
                        taken += 1;
                        if up_to(3) == 0 {
                            let given = debt.give_back(&question.key, &mut server.connection);
                            given.await.unwrap();
                            bucket = before;
                        }
                    }
                    Answer::Denied { wait: told } => {
                        assert_eq!(told, wait, "{limit:?} at step {step}");
                        assert!(wait > question.longest, "{limit:?} at step {step}");
                    }
                }
            }
            assert!((10..400).contains(&taken), "{limit:?}: {taken}");
        }
    }

    #[tokio::test]
    async fn another_limit_finds_the_debt_permit_for_permit() {
        let Some(mut server) = Server::connect().await else {
            return;
        };
        let now = server.began;
        let mut question = question(Limit::new(10, SECOND), SECOND);
        question.cost = 14;
        let answer = server.ask(&question, now).await;
        assert!(matches!(answer, Answer::Taken { wait, .. } if wait == 400 * SECOND / 1000));

        question.limit = Limit::new(100, SECOND).burst(10);
        question.cost = 1;
        let answer = server.ask(&question, now).await;
        assert!(matches!(answer, Answer::Taken { wait, .. } if wait == 50 * SECOND / 1000));
        question.limit = Limit::new(1, SECOND).burst(5);
        let answer = server.ask(&question, now + 50 * SECOND / 1000).await;
        assert_eq!(answer, Answer::Denied { wait: 6 * SECOND });
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_neither_pays_nor_blocks() {
        let Some(mut server) = Server::connect().await else {
            return;
        };
        let later = server.began + 3600 * SECOND;
        let question = question(Limit::new(1, SECOND), Duration::ZERO);
        assert!(matches!(
            server.ask(&question, later).await,
            Answer::Taken { .. }
        ));
        let now = server.began;
        let wait = SECOND;
        assert_eq!(server.ask(&question, now).await, Answer::Denied { wait });
        assert!(matches!(
            server.ask(&question, now + SECOND).await,
            Answer::Denied { .. }
        ));
    }

    #[tokio::test]
    async fn permits_are_not_given_back_behind_those_that_were_taken_after_them() {
        let Some(mut server) = Server::connect().await else {
            return;
        };
        let now = server.began;
        let question = question(Limit::new(10, SECOND).burst(1), SECOND);
        let mut debts = Vec::new();
        for i in 0..3 {
            let Answer::Taken { wait, debt } = server.ask(&question, now).await else {
                panic!("there is room to wait");
            };
            assert_eq!(wait, i * SECOND / 10);
            debts.push(debt);
        }
        let last = debts.pop().unwrap();
        for (debt, next) in [(debts.pop().unwrap(), 3), (last, 2)] {
            let given = debt.give_back(&question.key, &mut server.connection);
            given.await.unwrap();
            let mut asks = question.clone();
            asks.longest = Duration::ZERO;
            let wait = next * SECOND / 10;
            assert_eq!(server.ask(&asks, now).await, Answer::Denied { wait });
        }
    }

    #[tokio::test]
    async fn a_script_that_the_server_forgot_is_told_again_and_paid_debts_vanish() {
        let Some(mut server) = Server::connect().await else {
            return;
        };
        let connection = &mut server.connection;
        let question = question(Limit::new(100, SECOND).burst(5), Duration::ZERO);
        for _ in 0..3 {
            let flush = cmd("SCRIPT").arg("FLUSH").exec_async(connection).await;
            flush.unwrap();
            question.ask(connection).await.unwrap();
        }
        let left: i64 = connection.pttl(&question.key).await.unwrap();
        assert!((1..=32).contains(&left), "{left}");
        clock::sleep(Duration::from_millis(50)).await;
        assert!(!connection.exists::<_, bool>(&question.key).await.unwrap());
    }
}
