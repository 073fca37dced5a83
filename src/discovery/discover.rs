use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tower::discover::Change;

use super::changes::Changes;
use super::instance::{Instance, InstanceKey};

/// The instances of a service as [`tower::discover::Discover`] has them, so that tower's own `Balance` calls them.
///
/// An instance is known by its [key](Instance::key). Another weight or other metadata make no new service, for that would
/// forget what the balancer knows of it; another address does. Those that come are told of before those that go, so that
/// the balancer is not left without any in between. See [`Watch::discover`](super::Watch::discover).
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), buttress::BoxError> {
/// # use buttress::{BoxError, Instance, Registry, Resolver, registries::memory::Memory};
/// use tower::balance::p2c::Balance;
/// use tower::load::{CompleteOnResponse, PendingRequests};
/// use tower::{ServiceExt, service_fn};
///
/// # let registry = Memory::new();
/// # let orders = Instance::new("orders-1", "10.0.0.7", 8080);
/// # registry.register("orders", &orders, std::time::Duration::MAX).await?;
/// # let resolver = Resolver::new(registry);
/// let instances = resolver.watch("orders").discover(|instance| {
///     let url = format!("http://{}", instance.authority());
///     let call = service_fn(move |path: &str| std::future::ready(Ok::<_, BoxError>(format!("{url}{path}"))));
///     PendingRequests::new(call, CompleteOnResponse::default())
/// });
/// let answer = Balance::new(instances).oneshot("/7").await?;
/// assert_eq!(answer, "http://10.0.0.7:8080/7");
/// # Ok(())
/// # }
/// ```
pub struct Discover<N> {
    changes: Changes,
    new: N,
    told: VecDeque<Told>,
}

/// What is still to be told of a change.
enum Told {
    Added(Arc<Instance>),
    Removed(Arc<Instance>),
}

impl<N> Discover<N> {
    pub(super) fn new(changes: Changes, new: N) -> Self {
        Self {
            changes,
            new,
            told: VecDeque::new(),
        }
    }
}

// Nothing in it is pinned.
impl<N> Unpin for Discover<N> {}

impl<N, S> Stream for Discover<N>
where
    N: FnMut(&Arc<Instance>) -> S,
{
    type Item = Result<Change<InstanceKey, S>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.told.pop_front() {
                Some(Told::Added(instance)) => {
                    let service = (this.new)(&instance);
                    return Poll::Ready(Some(Ok(Change::Insert(instance.key(), service))));
                }
                Some(Told::Removed(instance)) => {
                    return Poll::Ready(Some(Ok(Change::Remove(instance.key()))));
                }
                None => {
                    let change = ready!(this.changes.poll_changed(cx));
                    this.told.extend(change.added.into_iter().map(Told::Added));
                    this.told
                        .extend(change.removed.into_iter().map(Told::Removed));
                }
            }
        }
    }
}

impl<N> fmt::Debug for Discover<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes = &self.changes;
        f.debug_struct("Discover")
            .field("changes", changes)
            .finish_non_exhaustive()
    }
}
