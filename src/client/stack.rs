use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::{Layer, Service, ServiceBuilder};

use super::policy::Policy;
use super::services::Known;
use super::transport::Transport;
use crate::balance::{Balance, NewEndpoint, SendFuture, Tried};
use crate::budget::RetryBudget;
use crate::classify::{Classify, Outcome};
use crate::deadline::Deadline;
use crate::discovery::{Instance, Watch};
use crate::error::{AsRejected, Error, Reason, Rejected};
use crate::layers::bulkhead::{Bulkhead, BulkheadLayer};
use crate::layers::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
use crate::layers::retry::{Decision, RetryLayer, Rules};
use crate::layers::timeout::{Timeout, TimeoutLayer};
use crate::observe::Observer;

/// The layers around the calls to one service, and the handles that steer them.
pub(super) struct Protected<T: Transport> {
    pub(super) stack: Stack<T>,
    pub(super) breaker: CircuitBreaker,
    pub(super) bulkhead: Bulkhead,
    pub(super) retry_budget: RetryBudget,
    pub(super) balance: Balanced<T>,
    pub(super) watch: Watch,
}

pub(super) type Stack<T> = Layered<TimeoutLayer, Layered<BulkheadLayer, Retried<T>>>;
type Retried<T> = Layered<RetryLayer<TransportRules<T>>, Broken<T>>;
type Broken<T> = Layered<CircuitBreakerLayer<TransportRules<T>>, Attempts<T>>;
type Balanced<T> = Balance<NewInstance<T>, TransportRules<T>>;
type Layered<L, S> = <L as Layer<S>>::Service;

impl<T: Transport> Protected<T> {
    pub(super) fn new(
        name: &str,
        policy: &Policy,
        watch: Watch,
        transport: &T,
        observer: &Observer,
    ) -> Self {
        let rules = TransportRules(transport.clone());
        let breaker = CircuitBreaker::new(name, policy.breaker.clone()).observe(observer.clone());
        let bulkhead = Bulkhead::new(name, policy.outstanding).observe(observer.clone());
        let bulkhead = match policy.queue {
            Some((length, longest)) => bulkhead.queue(length, longest),
            None => bulkhead,
        };
        let retry_budget = RetryBudget::default();
        let new_instance = NewInstance {
            transport: transport.clone(),
            timeout: TimeoutLayer::new(policy.attempt_timeout)
                .name(name)
                .observe(observer.clone()),
        };
        let balance = Balance::new(watch.clone(), new_instance)
            .classify(rules.clone())
            .ejection(policy.ejection.clone())
            .observe(observer.clone());
        let stack = ServiceBuilder::new()
            .layer(
                TimeoutLayer::new(policy.timeout)
                    .name(name)
                    .observe(observer.clone()),
            )
            .layer(bulkhead.layer())
            .layer(
                RetryLayer::new(policy.attempts)
                    .name(name)
                    .backoff(policy.backoff.clone())
                    .rules(rules.clone())
                    .budget(retry_budget.clone())
                    .observe(observer.clone()),
            )
            .layer(breaker.layer().classify(rules))
            .service(Attempts(balance.clone()));
        Self {
            stack,
            breaker,
            bulkhead,
            retry_budget,
            balance,
            watch,
        }
    }
}

impl<T: Transport> Known for Protected<T> {
    fn has_ended(&self) -> bool {
        self.watch.has_ended()
    }

    fn is_unknown(&self) -> bool {
        self.watch.is_unknown()
    }
}

impl<T: Transport> fmt::Debug for Protected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protected")
            .field("breaker", &self.breaker)
            .field("bulkhead", &self.bulkhead)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

/// A request and the instances that its attempts went to.
pub(super) struct Call<R> {
    request: R,
    tried: Arc<Tried>,
}

impl<R> Call<R> {
    pub(super) fn new(request: R) -> Self {
        Self {
            request,
            tried: Arc::default(),
        }
    }
}

/// The transport's rules, as the layers ask for them.
#[derive(Clone, Debug)]
pub(super) struct TransportRules<T>(T);

impl<T: Transport> Rules<Call<T::Request>, T::Response, Error<T::Error>> for TransportRules<T> {
    fn replay(&self, call: &Call<T::Request>, _attempt: u32) -> Option<Call<T::Request>> {
        Some(Call {
            request: self.0.replay(&call.request)?,
            tried: call.tried.clone(),
        })
    }

    fn mark(&self, call: &mut Call<T::Request>, attempt: u32) {
        self.0.mark(&mut call.request, attempt);
    }

    fn mark_response(&self, response: &mut T::Response, attempts: u32) {
        self.0.mark_response(response, attempts);
    }

    fn is_failure(&self, result: Result<&T::Response, &Error<T::Error>>) -> bool {
        self.0.is_failure(result)
    }

    fn decide(
        &self,
        call: &Call<T::Request>,
        result: Result<&T::Response, &Error<T::Error>>,
    ) -> Decision {
        self.0.decide(&call.request, result)
    }

    fn is_refusal(&self, error: &Error<T::Error>) -> bool {
        refused_by(error).is_some()
    }
}

impl<T: Transport> Classify<T::Response, Error<T::Error>> for TransportRules<T> {
    fn classify(&self, result: Result<&T::Response, &Error<T::Error>>) -> Outcome {
        match result {
            Err(error) if refused_by(error).is_some() => Outcome::Ignored,
            result => self.0.classify(result),
        }
    }
}

/// The refusal of a layer that kept an attempt from the peer. An address that cannot be called is the fault of one
/// instance: another may be well.
fn refused_by<E>(error: &Error<E>) -> Option<&Rejected> {
    error
        .as_rejected()
        .filter(|rejected| rejected.never_sent() && rejected.reason() != Reason::BadAddress)
}

/// Sends each attempt to an instance not yet tried.
pub(super) struct Attempts<T: Transport>(Balanced<T>);

impl<T: Transport> Clone for Attempts<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Transport> Service<Call<T::Request>> for Attempts<T> {
    type Response = T::Response;
    type Error = Error<T::Error>;
    type Future = SendFuture<NewInstance<T>, TransportRules<T>, Attempt<T::Request>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call<T::Request>) -> Self::Future {
        let attempt = Attempt {
            request: call.request,
            deadline: Deadline::current(),
        };
        self.0.send(attempt, Some(&call.tried))
    }
}

/// One attempt: the request, and the deadline of the whole call.
pub(super) struct Attempt<R> {
    request: R,
    deadline: Option<Deadline>,
}

/// Makes the service of an instance: the transport under the attempt's timeout.
#[derive(Clone)]
pub(super) struct NewInstance<T> {
    transport: T,
    timeout: TimeoutLayer,
}

impl<T: Transport> NewEndpoint for NewInstance<T> {
    type Service = Timeout<Endpoint<T>>;

    fn new_endpoint(&self, instance: &Arc<Instance>) -> Self::Service {
        let timeout = self.timeout.clone().instance(&*instance.id);
        timeout.layer(Endpoint {
            transport: self.transport.clone(),
            endpoint: self.transport.endpoint(instance),
        })
    }
}

#[derive(Clone)]
pub(super) struct Endpoint<T: Transport> {
    transport: T,
    endpoint: T::Endpoint,
}

impl<T: Transport> Service<Attempt<T::Request>> for Endpoint<T> {
    type Response = T::Response;
    type Error = Error<T::Error>;
    type Future = T::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt<T::Request>) -> Self::Future {
        let Attempt { request, deadline } = attempt;
        self.transport.call(&self.endpoint, request, deadline)
    }
}
