use http::{Extensions, HeaderMap, HeaderName, HeaderValue};

/// Which attempt of a call a request is, among its extensions: [`HttpRules`](super::HttpRules) put it there, or the rules
/// of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 1 for the first; retries and hedges count on from it.
    pub number: u32,
    /// Whether it is sent while the one before is still under way.
    pub hedge: bool,
}

impl Attempt {
    /// The hedge of a request that is the attempt `before`, if anything was said of that.
    pub(crate) fn hedge_after(before: Option<Self>) -> Self {
        Self {
            number: before.unwrap_or_default().number + 1,
            hedge: true,
        }
    }

    /// Writes the number into the header `name`, as that is read in the field.
    pub(crate) fn announce(self, name: &HeaderName, headers: &mut HeaderMap) {
        let number = match name == PREVIOUS_ATTEMPTS {
            true => self.number.saturating_sub(1),
            false => self.number,
        };
        // gRPC leaves out that none went before.
        if number > 0 {
            headers.insert(name, HeaderValue::from(number));
        }
    }
}

/// The first attempt.
impl Default for Attempt {
    fn default() -> Self {
        Self {
            number: 1,
            hedge: false,
        }
    }
}

/// How many attempts an answer took, among its extensions where they are more than one: [`HttpRules`](super::HttpRules)
/// put it there, or the rules of gRPC. Attempts that a layer inside refused are left out.
///
/// It counts as [`Attempt::number`] does: those that retry and hedge made, where the hedge stands inside, and of its hedges
/// those of the last retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(pub u32);

impl Attempts {
    /// Writes that there were `attempts`, the last of which may have been several.
    pub(crate) fn write(attempts: u32, extensions: &mut Extensions) {
        let last = extensions.get().map_or(1, |&Self(last)| last);
        extensions.insert(Self((attempts - 1).saturating_add(last)));
    }
}

/// gRPC A6: how many attempts went before.
pub(crate) const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";
