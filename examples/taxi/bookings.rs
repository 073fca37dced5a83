use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// The database of the trips, which all instances of trip management share.
#[derive(Clone, Default)]
pub struct Bookings(Arc<Mutex<HashSet<String>>>);

impl Bookings {
    /// Books the trip; `false` if it is booked already.
    pub fn book(&self, id: &str) -> bool {
        let mut booked = self.0.lock().expect("nobody panics under it");
        booked.insert(id.to_owned())
    }
}
