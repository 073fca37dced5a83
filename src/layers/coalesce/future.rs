use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::flight::{Part, Seat};
use crate::clock::{self, Sleep};
use crate::deadline::Deadline;
use crate::error::{Reason, Rejected};
use crate::observe::{Event, Observer};

/// With whom a caller shares a call: those of its key, or those of its batch.
pub trait Group {
    /// What the caller asks for.
    type Request;
    /// The call that is shared.
    type Call: Future;
    /// What the caller gets.
    type Response;
    /// What goes wrong with it.
    type Error: From<Rejected>;

    /// A seat in a call that is under way or that begins.
    fn join(&mut self, request: Self::Request) -> Seat<Self::Call>;

    /// What the holder of `seat` gets of the output; a reason if that has nothing for it. Called under a lock.
    fn part(
        &self,
        seat: u64,
        output: Part<'_, <Self::Call as Future>::Output>,
    ) -> Result<Result<Self::Response, Self::Error>, Reason>;

    /// Leaves the seat, and forgets a call that has ended or that nobody waits for any more.
    fn leave(&self, seat: Seat<Self::Call>);

    /// Who refuses.
    fn voice(&self) -> &Voice;
}

/// Under what name a layer refuses, and who is told.
#[derive(Clone, Debug)]
pub struct Voice {
    layer: &'static str,
    pub(super) name: Option<Arc<str>>,
    pub(super) observer: Observer,
}

impl Voice {
    pub(super) fn new(layer: &'static str) -> Self {
        Self {
            layer,
            name: None,
            observer: Observer::default(),
        }
    }

    /// Somebody joined another's call.
    fn coalesced(&self) {
        let coalesce = self.name.as_deref().unwrap_or(self.layer);
        self.observer.emit(&Event::Coalesced { coalesce });
    }

    fn refused(&self, reason: Reason) -> Rejected {
        let rejected = Rejected::new(self.layer, reason);
        self.observer.refused(match &self.name {
            Some(name) => rejected.named(Arc::clone(name)),
            None => rejected,
        })
    }
}

pin_project! {
    /// The future of a [`Coalesce`](super::Coalesce) or [`BatchService`](super::BatchService).
    pub struct CoalesceFuture<G: Group> {
        // A call is joined when this is first polled: one that is not polled must not keep others waiting.
        request: Option<G::Request>,
        member: Option<Member<G>>,
        // The deadline's, registered only once the call is pending.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<G: Group> CoalesceFuture<G> {
    pub(super) fn new(group: G, request: G::Request) -> Self {
        Self {
            request: Some(request),
            member: Some(Member { group, seat: None }),
            timer: None,
        }
    }
}

impl<G: Group> Future for CoalesceFuture<G> {
    type Output = Result<G::Response, G::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let member = this.member.as_mut().expect("polled after completion");
        let deadline = Deadline::current();
        if let Some(request) = this.request.take() {
            if !deadline.is_some_and(|deadline| deadline.has_passed(clock::now())) {
                let seat = member.group.join(request);
                if seat.is_shared() {
                    member.group.voice().coalesced();
                }
                member.seat = Some(seat);
            }
        }
        let result = match ready!(member.poll(deadline, this.timer.as_mut(), cx)) {
            Ok(result) => result,
            Err(reason) => {
                let voice = member.group.voice().clone();
                // The seat is left before anybody is told.
                *this.member = None;
                Err(voice.refused(reason).into())
            }
        };
        // A finished call holds nothing, however long its future is kept.
        *this.member = None;
        this.timer.set(None);
        Poll::Ready(result)
    }
}

/// A caller, in a seat or too late for one. The group is told when it leaves.
struct Member<G: Group> {
    group: G,
    seat: Option<Seat<G::Call>>,
}

impl<G: Group> Member<G> {
    #[allow(clippy::type_complexity)]
    fn poll(
        &self,
        deadline: Option<Deadline>,
        mut timer: Pin<&mut Option<Sleep>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Result<G::Response, G::Error>, Reason>> {
        let Some(seat) = &self.seat else {
            return Poll::Ready(Err(Reason::DeadlineExceeded));
        };
        let part = |part: Part<'_, _>| self.group.part(seat.number(), part);
        if let Poll::Ready(ended) = seat.poll(cx, part) {
            return Poll::Ready(ended.unwrap_or(Err(Reason::Panicked)));
        }
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        if timer.is_none() {
            timer.set(Some(clock::until(deadline.instant())));
        }
        match timer.as_pin_mut() {
            Some(timer) => timer.poll(cx).map(|()| Err(Reason::DeadlineExceeded)),
            None => Poll::Pending,
        }
    }
}

impl<G: Group> Drop for Member<G> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.group.leave(seat);
        }
    }
}
