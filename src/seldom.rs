//! What most calls have not.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};

/// An `Option` that is seldom anything. To drop nothing is one comparison then, wherever it is dropped: what it takes to
/// drop something stays out of the way of those who have nothing.
pub(crate) struct Seldom<T>(ManuallyDrop<Option<T>>);

impl<T> Seldom<T> {
    #[inline(always)]
    pub(crate) const fn new(value: Option<T>) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> Deref for Seldom<T> {
    type Target = Option<T>;

    #[inline(always)]
    fn deref(&self) -> &Option<T> {
        &self.0
    }
}

impl<T> DerefMut for Seldom<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Option<T> {
        &mut self.0
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<T: Clone> Clone for Seldom<T> {
    fn clone(&self) -> Self {
        Self::new((**self).clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Seldom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Drop for Seldom<T> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_some() {
            end(&mut self.0);
        }
    }
}

#[cold]
fn end<T>(value: &mut ManuallyDrop<Option<T>>) {
    drop(ManuallyDrop::into_inner(mem::take(value)));
}
