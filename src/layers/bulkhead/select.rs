use super::Bulkhead;

/// Says which bulkhead a request is put behind: one for all, that of its partition, or that of its key.
pub trait Select<Req> {
    /// What `enter` makes of the bulkhead of the request.
    fn select<T>(&self, request: &Req, enter: impl Fn(&Bulkhead) -> T) -> T;
}

impl<Req> Select<Req> for Bulkhead {
    #[inline(always)]
    fn select<T>(&self, _: &Req, enter: impl Fn(&Bulkhead) -> T) -> T {
        enter(self)
    }
}
