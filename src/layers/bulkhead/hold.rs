use super::Permit;

/// What becomes of a slot when the response is there; a closure will do.
pub trait Hold<Res> {
    /// What the caller is given.
    type Response;

    /// Takes over the slot; dropping it gives it back.
    fn hold(&self, response: Res, permit: Permit) -> Self::Response;
}

impl<F, Res, Held> Hold<Res> for F
where
    F: Fn(Res, Permit) -> Held,
{
    type Response = Held;

    #[inline(always)]
    fn hold(&self, response: Res, permit: Permit) -> Held {
        self(response, permit)
    }
}

/// The default: the call ends with the response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Release;

impl<Res> Hold<Res> for Release {
    type Response = Res;

    #[inline(always)]
    fn hold(&self, response: Res, permit: Permit) -> Res {
        permit.end();
        response
    }
}
