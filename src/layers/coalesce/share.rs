use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::mem;
use std::sync::Arc;

use crate::error::{BoxError, Error, Rejected};

/// How one error answers several callers.
///
/// An error type that is `Clone` says so: `.share(Status::clone)`. Any function of the error will do.
pub trait Share<E> {
    /// An error for another of those who waited. It may turn `error` into a form that can be shared, but the caller who
    /// gets that must find the same in it.
    fn share(&self, error: &mut E) -> E;
}

impl<F, E> Share<E> for F
where
    F: Fn(&E) -> E,
{
    fn share(&self, error: &mut E) -> E {
        self(error)
    }
}

/// The default: a [`BoxError`] is put behind an `Arc`, an [`Error`] is cloned.
///
/// Where several callers got one `BoxError`, the error itself is the first `source()` of what each of them has, so
/// that [`Rejected::find`] and every walk of the chain finds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShareErrors;

impl Share<BoxError> for ShareErrors {
    fn share(&self, error: &mut BoxError) -> BoxError {
        if let Some(shared) = error.downcast_ref::<Shared>() {
            return Box::new(shared.clone());
        }
        let alone = mem::replace(error, Box::new(fmt::Error));
        let shared = Shared(Arc::from(alone));
        *error = Box::new(shared.clone());
        Box::new(shared)
    }
}

impl<E: Clone> Share<Error<E>> for ShareErrors {
    fn share(&self, error: &mut Error<E>) -> Error<E> {
        error.clone()
    }
}

impl Share<Rejected> for ShareErrors {
    fn share(&self, error: &mut Rejected) -> Rejected {
        error.clone()
    }
}

impl Share<Infallible> for ShareErrors {
    fn share(&self, error: &mut Infallible) -> Infallible {
        match *error {}
    }
}

/// Transparent, save that the error is its source.
#[derive(Clone, Debug)]
struct Shared(Arc<dyn StdError + Send + Sync>);

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}
