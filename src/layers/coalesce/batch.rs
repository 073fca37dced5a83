/// How several requests become one, and its answer becomes several.
///
/// ```
/// use std::collections::HashMap;
/// use buttress::layers::coalesce::Batch;
///
/// /// `GET /users?id=1,2,3` in place of three times `GET /users/…`.
/// struct Users;
///
/// impl Batch for Users {
///     type Request = u64;
///     type Response = String;
///     type Merged = Vec<u64>;
///     type Answer = HashMap<u64, String>;
///
///     fn merge(&self, ids: &[u64]) -> Vec<u64> {
///         ids.to_vec()
///     }
///
///     fn split(&self, users: HashMap<u64, String>, ids: &[u64]) -> Vec<Option<String>> {
///         ids.iter().map(|id| users.get(id).cloned()).collect()
///     }
/// }
/// ```
pub trait Batch {
    /// What one caller asks for.
    type Request;
    /// What one caller gets.
    type Response;
    /// What the inner service is asked.
    type Merged;
    /// What the inner service answers.
    type Answer;

    /// In which batch `request` may be: only those of one shard are ever sent together. By tenant, for example, or by the
    /// part of the peer that knows the answer. By default all are of one shard.
    fn shard(&self, _request: &Self::Request) -> u64 {
        0
    }

    /// One request for all of `requests`, which are in the order in which their callers came and may be alike.
    fn merge(&self, requests: &[Self::Request]) -> Self::Merged;

    /// What each of `requests` gets of the answer, in their order. `None`, or a list that ends before, is an error for
    /// that caller alone.
    fn split(
        &self,
        answer: Self::Answer,
        requests: &[Self::Request],
    ) -> Vec<Option<Self::Response>>;
}
