use super::CircuitBreaker;
use crate::clock;
use crate::rng::ThreadRng;

impl CircuitBreaker {
    /// Lets time take effect at its moment and not at the next call or look, for as long as this is polled: an open
    /// breaker turns half-open when its wait is over, and a half-open one has decided at its limit. It never ends; spawn
    /// it where listeners should hear of these changes though nobody calls.
    pub async fn keep_time(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changes());
            changed.as_mut().enable();
            match self.with(|breaker, now| breaker.keep_time(now, &mut ThreadRng)) {
                Some(wait) => tokio::select! {
                    () = changed => {}
                    () = clock::until(clock::after(clock::now(), wait)) => {}
                },
                None => changed.await,
            }
        }
    }
}
