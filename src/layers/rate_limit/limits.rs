use crate::algo::gcra::Limit;

/// What limit a key has: the same [`Limit`] as all others, or what a function of it says.
pub trait LimitOf<K> {
    /// The limit of `key`. It is asked for outside of all locks, and seldom.
    fn limit_of(&self, key: &K) -> Limit;
}

impl<K> LimitOf<K> for Limit {
    fn limit_of(&self, _: &K) -> Limit {
        *self
    }
}

impl<F, K> LimitOf<K> for F
where
    F: Fn(&K) -> Limit,
{
    fn limit_of(&self, key: &K) -> Limit {
        self(key)
    }
}
