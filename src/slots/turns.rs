use std::collections::HashMap;

/// Turns among equals, so that callers are served in rounds however many calls each has waiting: start-time fair queueing
/// (Goyal, Vin and Cheng, 1996), with calls of one size. Who tells no caller stands in the round that is served.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The round that is served.
    now: u64,
    /// The round after the last call of each caller that waits, or waited a while ago.
    next: HashMap<Caller, u64>,
}

/// The callers of a level are apart from those of another.
pub(super) type Caller = (u8, u64);

impl Turns {
    /// In which round the caller's next call is served.
    pub(super) fn next(&self, caller: Option<Caller>) -> u64 {
        let next = caller.and_then(|caller| self.next.get(&caller));
        next.map_or(self.now, |&next| next.max(self.now))
    }

    /// The caller waits for `turn`; `waiting` do in all.
    pub(super) fn take(&mut self, caller: Option<Caller>, turn: u64, waiting: usize) {
        let Some(caller) = caller else {
            return;
        };
        // Whose next turn has come is as one never seen, and no more than those who wait have it still to come.
        if self.next.len() > 2 * waiting + FEW {
            self.next.retain(|_, next| *next > self.now);
        }
        self.next.insert(caller, turn + 1);
    }

    /// The caller's last turn is free again.
    pub(super) fn give_back(&mut self, caller: Option<Caller>, turn: u64) {
        if let Some(next) = caller.and_then(|caller| self.next.get_mut(&caller)) {
            *next = turn;
        }
    }

    /// Nobody waits any more.
    pub(super) fn forget(&mut self) {
        self.now = 0;
        self.next.clear();
    }

    pub(super) fn served(&mut self, turn: u64) {
        self.now = self.now.max(turn);
    }
}

const FEW: usize = 64;
