use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;

use super::line::{Denied, Place, Turn};
use super::settings::Settings;
use crate::clock::{self, Sleep};
use crate::error::Rejected;

pin_project! {
    /// The wait for permits; see [`RateLimiter::acquire_for`](super::RateLimiter::acquire_for). Dropped before it is
    /// done, it gives them back.
    #[derive(Debug)]
    #[must_use = "permits or a place in the queue are held until this is awaited or dropped"]
    pub struct Acquire {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State {
        Waiting {
            // Taken once its permits are spent.
            place: Option<Place>,
            permits: u32,
            #[pin]
            timer: Option<Sleep>,
            settings: Arc<Settings>,
        },
        Refused { rejected: Option<Rejected> },
    }
}

impl Acquire {
    pub(super) fn new(
        asked: Result<Place, Denied>,
        permits: u32,
        settings: &Arc<Settings>,
    ) -> Self {
        let state = match asked {
            Ok(place) => State::Waiting {
                place: Some(place),
                permits,
                timer: None,
                settings: Arc::clone(settings),
            },
            Err(denied) => State::Refused {
                rejected: Some(settings.refused(permits, denied)),
            },
        };
        Self { state }
    }
}

impl Future for Acquire {
    type Output = Result<(), Rejected>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (denied, permits, settings) = match state.as_mut().project() {
            StateProj::Waiting {
                place,
                permits,
                mut timer,
                settings,
            } => loop {
                let at = match place.as_mut().expect("polled after completion").poll(cx) {
                    Ok(Turn::At(at)) => at,
                    Ok(Turn::Now) => {
                        place.take().into_iter().for_each(Place::spend);
                        return Poll::Ready(Ok(()));
                    }
                    Err(denied) => break (denied, *permits, Arc::clone(settings)),
                };
                let set = timer.as_ref().as_pin_ref();
                if set.is_none_or(|set| set.deadline().into_std() != at) {
                    timer.set(Some(clock::until(at)));
                }
                if let Some(timer) = timer.as_mut().as_pin_mut() {
                    ready!(timer.poll(cx));
                }
            },
            StateProj::Refused { rejected } => {
                let rejected = rejected.take().expect("polled after completion");
                return Poll::Ready(Err(rejected));
            }
        };
        // The place is left before anybody is told.
        state.set(State::Refused { rejected: None });
        Poll::Ready(Err(settings.refused(permits, denied)))
    }
}
