use std::collections::HashMap;
use std::pin::Pin;
use std::task::Poll;

use tokio::sync::oneshot;
use tower::util::BoxCloneService;
use tower::{Layer, ServiceExt, service_fn};

use buttress::algo::breaker::{Figures, State};
use buttress::layers::circuit_breaker::CircuitBreaker;
use buttress::{BoxError, Outcome, Rejected, clock};

use super::log::{Log, classifier};
use super::profiles::TICK;
use super::settings::Plan;
use super::{Expect, Name, Op, Step};
use crate::report::{Miss, same};
use crate::timeline::{Timeline, poll_once};

/// Breakers around a service that answers with the outcome it is sent.
pub(super) struct Bench {
    plan: Plan,
    breakers: Vec<CircuitBreaker>,
    service: BoxCloneService<oneshot::Receiver<Outcome>, Outcome, BoxError>,
    calls: HashMap<String, Call>,
    log: Log,
    timeline: Timeline,
    /// Half-open states since the last closed one.
    attempts: usize,
    /// Which breakers are half-open with no probe out, because another one refused it.
    refused_probe: Vec<bool>,
}

struct Call {
    answer: oneshot::Sender<Outcome>,
    future: Pin<Box<dyn Future<Output = Result<Outcome, BoxError>>>>,
}

impl Bench {
    pub(super) fn new(plan: Plan) -> Self {
        let log = Log::default();
        let peer = service_fn(|answer: oneshot::Receiver<Outcome>| async {
            answer.await.map_err(BoxError::from)
        });
        let mut service = BoxCloneService::new(peer);
        let mut breakers = Vec::new();
        for rule in plan.rules.iter().rev() {
            let breaker = CircuitBreaker::new("peer", rule.settings.clone());
            enter(&breaker, plan.initial_state);
            let breaker = breaker.observe(log.clone());
            let classify = classifier(rule, &breaker, &log);
            service = BoxCloneService::new(breaker.layer().classify(classify).layer(service));
            breakers.insert(0, breaker);
        }
        Self {
            refused_probe: vec![false; breakers.len()],
            plan,
            breakers,
            service,
            calls: HashMap::new(),
            log,
            timeline: Timeline::start(),
            attempts: 0,
        }
    }

    /// Lets time pass, and forgets what was told.
    pub(super) async fn reach(&mut self, at_ms: u64) {
        self.log.take();
        let at = self.timeline.at(at_ms);
        if self.plan.auto_half_open {
            tokio::select! {
                biased;
                () = self.breakers[0].keep_time() => {}
                () = clock::until(at) => {}
            }
        }
        self.timeline.reach(at).await;
    }

    pub(super) async fn act(&mut self, step: &Step) -> Result<(), Miss> {
        let before = self.states();
        match step.op {
            Op::Acquire => self.acquire(step, &before).await?,
            Op::Success | Op::SlowSuccess => {
                self.end(step, self.plan.outcome_of_result(step)).await?;
            }
            Op::Failure | Op::SlowFailure | Op::Timeout => {
                self.end(step, self.plan.outcome_of_error(step)).await?;
            }
            Op::Ignore if self.plan.cancel_reopens && before[0] == State::HalfOpen => {
                self.end(step, Outcome::Failure).await?;
            }
            Op::Ignore => self.end(step, self.plan.unhandled).await?,
            Op::Cancel if self.plan.cancel_reopens && before[0] != State::HalfOpen => {
                self.end(step, Outcome::Ignored).await?;
            }
            Op::Cancel => drop(self.call(step)?),
            Op::Transition => self.transition(step)?,
            Op::Reset => {
                self.breakers.iter().for_each(CircuitBreaker::close);
                self.log.note("reset".to_owned());
            }
            Op::Query => {}
        }
        self.follow(&before);
        Ok(())
    }

    async fn acquire(&mut self, step: &Step, before: &[State]) -> Result<(), Miss> {
        if self.plan.no_wait {
            self.timeline.reach(clock::now() + TICK).await;
        }
        let (answer, asked) = oneshot::channel();
        let mut future: Pin<Box<_>> = Box::pin(self.service.clone().oneshot(asked));
        let got = match poll_once(&mut future).await {
            Poll::Pending => {
                let call = Call { answer, future };
                self.calls
                    .insert(step.call.clone().unwrap_or_default(), call);
                Expect::Permitted
            }
            Poll::Ready(result) => {
                let error = result.expect_err("nobody answered yet");
                assert!(Rejected::find(&*error).is_some_and(Rejected::is_open));
                Expect::Rejected
            }
        };
        for (i, state) in self.states().into_iter().enumerate() {
            let had_no_probe = before[i] != State::HalfOpen || self.refused_probe[i];
            self.refused_probe[i] =
                got == Expect::Rejected && state == State::HalfOpen && had_no_probe;
        }
        same("the answer", got, step.expect.unwrap_or(got))
    }

    async fn end(&mut self, step: &Step, outcome: Outcome) -> Result<(), Miss> {
        let mut call = self.call(step)?;
        call.answer.send(outcome).expect("the call is under way");
        let ended = poll_once(&mut call.future).await.map(|result| result.ok());
        same("the end of the call", ended, Poll::Ready(Some(outcome)))
    }

    fn call(&mut self, step: &Step) -> Result<Call, Miss> {
        let name = step.call.as_deref().unwrap_or_default();
        self.calls
            .remove(name)
            .ok_or_else(|| Miss::Failed(format!("`{name}` is not under way")))
    }

    fn transition(&self, step: &Step) -> Result<(), Miss> {
        let mut got = Expect::Ok;
        for breaker in &self.breakers {
            match (step.for_ms, step.to) {
                (Some(wait), _) if breaker.state() != State::MetricsOnly => {
                    breaker.open_for((self.plan.wait)(wait));
                }
                (_, Some(to)) if self.plan.checks_steps => {
                    if breaker.set(to.state()).is_err() {
                        got = Expect::Error;
                    }
                }
                (_, to) => enter(breaker, to),
            }
        }
        same("the step by hand", got, step.expect.unwrap_or(got))
    }

    /// Sets the length of the next open state, where that is a list.
    fn follow(&mut self, before: &[State]) {
        let (before, now) = (before[0], self.breakers[0].state());
        match now {
            State::Closed => self.attempts = 0,
            State::HalfOpen if before != State::HalfOpen => self.attempts += 1,
            _ => {}
        }
        let sequence = &self.plan.break_sequence;
        if let Some(wait) = sequence.get(self.attempts).or(sequence.last()) {
            let settings = self.plan.rules[0].settings.clone();
            self.breakers[0].reconfigure(settings.open_wait(*wait));
        }
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.log.take()
    }

    pub(super) fn figures(&self) -> Vec<Figures> {
        let mut figures: Vec<_> = self.breakers.iter().map(CircuitBreaker::figures).collect();
        // A half-open state without a probe admits the next call, as an open one does whose wait is over.
        for (figures, refused) in figures.iter_mut().zip(&self.refused_probe) {
            if *refused && figures.state == State::HalfOpen {
                figures.state = State::Open;
            }
        }
        figures
    }

    fn states(&self) -> Vec<State> {
        self.breakers.iter().map(CircuitBreaker::state).collect()
    }

    /// The failure rate and the slow-call rate, as the profile shows them.
    pub(super) fn rates(&self, figures: &Figures) -> (Option<f64>, Option<f64>) {
        if self.plan.rate_from_minimum {
            return (figures.failure_rate, figures.slow_rate);
        }
        let calls = figures.calls;
        let shown = calls.calls > 0;
        (
            shown.then(|| calls.failure_rate()),
            shown.then(|| calls.slow_rate()),
        )
    }
}

fn enter(breaker: &CircuitBreaker, state: Option<Name>) {
    match state {
        None => {}
        Some(Name::Closed) => breaker.close(),
        Some(Name::Open) => breaker.open(),
        Some(Name::HalfOpen) => breaker.half_open(),
        Some(Name::ForcedOpen) => breaker.force_open(),
        Some(Name::Disabled) => breaker.disable(),
        Some(Name::MetricsOnly) => breaker.metrics_only(),
    }
}
