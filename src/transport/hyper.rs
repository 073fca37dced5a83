use std::any::Any;
use std::error::Error as StdError;

use hyper_util::client::legacy;

use crate::error::{BoxError, Error, find};

/// Whether the client of `hyper-util` made no connection, so that nothing was sent: its error stands in a chain of sources,
/// or in a typed stack.
pub(super) fn is_connect(error: &dyn Any) -> bool {
    let typed = match error.downcast_ref() {
        Some(Error::<legacy::Error>::Inner(error)) => Some(error),
        _ => None,
    };
    let chained = || {
        let error: &BoxError = error.downcast_ref()?;
        let error: &(dyn StdError + 'static) = &**error;
        find(error)
    };
    typed
        .or_else(chained)
        .is_some_and(legacy::Error::is_connect)
}
