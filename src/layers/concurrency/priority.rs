/// How much a call matters. Under overload the lowest are shed first.
///
/// Each level leaves a tenth of the limit to those above it, and stands behind them in the queue. A request may carry it
/// as an extension, and a header may carry it from hop to hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Nobody will notice: prefetching, batches that run again.
    Low,
    /// What is not said otherwise.
    #[default]
    Normal,
    /// A user waits.
    High,
    /// Must not fail: payments, health of the system itself. Keep it rare.
    Critical,
}

/// Says how much a request matters; a closure will do.
pub trait Prioritise<Req> {
    /// The priority of `request`.
    fn priority(&self, request: &Req) -> Priority;
}

impl<F, Req> Prioritise<Req> for F
where
    F: Fn(&Req) -> Priority,
{
    fn priority(&self, request: &Req) -> Priority {
        self(request)
    }
}

/// The default: every call may use the whole limit, and waits in turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllEqual;

impl<Req> Prioritise<Req> for AllEqual {
    fn priority(&self, _: &Req) -> Priority {
        Priority::Critical
    }
}
