//! How long a change takes from the registry's acknowledgement to the first pick that knows of it, and that none is lost
//! and none made up. Alone in its file, since what else goes on would be measured too.
//!
//! `BUTTRESS_CHANGES` says how many changes there are: 300 if it is not set, a figure to trust from 10 000 on.
#![allow(clippy::unwrap_used)] // In helpers too, which clippy does not know to be tests.

mod rows;
mod watching;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use buttress::balance::Balance;
use buttress::clock;
use buttress::discovery::{Instance, Resolver, Watch};
use hdrhistogram::Histogram;
use rows::Row;
use tokio::sync::Mutex as Turn;
use tower::service_fn;
use watching::{PATIENCE, unique, until};

macro_rules! propagation {
    ($($row:ident)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $row() {
            if let Some(row) = <rows::$row::Row as Row>::start().await {
                every_change_arrives_and_none_is_made_up(row).await;
            }
        }
    )* };
}

propagation!(consul dns etcd eureka kubernetes zookeeper);

/// One registry after the other.
static TURN: Turn<()> = Turn::const_new(());

async fn every_change_arrives_and_none_is_made_up<R: Row>(row: R) {
    let _turn = TURN.lock().await;
    let changes = std::env::var("BUTTRESS_CHANGES").ok();
    let changes: u32 = changes.map_or(300, |text| text.parse().unwrap());
    let service = unique("orders");
    // Most of them are there at any time, lest the fall be doubted.
    let instance = |n: usize, weight| {
        let instance = Instance::new(format!("{service}-{n:03}"), format!("10.0.0.{n}"), 80);
        R::told(instance.weight(weight))
    };
    let has_weights = instance(0, 2).weight == 2;
    let mut weights = BTreeMap::new();
    for n in 0..IDS {
        let one = instance(n, 1);
        row.write(&service, &one).await;
        weights.insert(one.id, Some(one.weight));
    }
    let watch = Resolver::new(row.registry()).watch(&*service);
    let count = || watch.snapshot().live().len();
    assert!(until(PATIENCE, || count() == IDS).await);

    let pending: Arc<Mutex<Pending>> = Arc::default();
    let measured = tokio::spawn(follow(watch.clone(), Arc::clone(&pending)));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut lost, mut phantom) = (0, 0);
    for change in 0..changes {
        // One of which no change is under way, so that each can be told from the one before.
        let one = loop {
            let one = instance(random.below(IDS), change + 2);
            let is_settled = !pending.lock().unwrap().changes.contains_key(&one.id);
            let may_go = weights[&one.id].is_none() || present(&weights).len() > MOST;
            if is_settled && (has_weights || may_go) {
                break one;
            }
            clock::sleep(Duration::from_millis(1)).await;
        };
        let is_removed = weights[&one.id].is_some() && (!has_weights || random.below(3) == 0);
        let wanted = (!is_removed).then_some(one.weight);
        pending.lock().unwrap().begin(&one.id, wanted);
        match is_removed {
            true => row.remove(&service, &one.id).await,
            false => row.write(&service, &one).await,
        }
        pending.lock().unwrap().acknowledged(&one.id);
        weights.insert(one.id, wanted);
        clock::sleep(Duration::from_millis(random.below(20) as u64)).await;

        if change % BURST == BURST - 1 || change == changes - 1 {
            let expected = present(&weights);
            // Eureka prepares even this answer now and then only.
            let began = clock::now();
            while row.list(&service).await != expected {
                let waited = clock::now() - began;
                assert!(waited < PATIENCE, "what was written is there");
                clock::sleep(Duration::from_millis(50)).await;
            }
            let _ = until(R::INTERVAL + PATIENCE, || known(&watch) == expected).await;
            let known = known(&watch);
            lost += expected
                .iter()
                .filter(|&(id, weight)| known.get(id) != Some(weight))
                .count();
            phantom += known
                .keys()
                .filter(|id| !expected.contains_key(*id))
                .count();
        }
    }
    measured.abort();
    let pending = std::mem::take(&mut *pending.lock().unwrap());
    let _ = writeln!(
        std::io::stderr(),
        "{}: {changes} changes, {lost} lost, {phantom} phantom",
        R::NAME
    );
    assert_eq!((lost, phantom, pending.changes.len()), (0, 0, 0));
    let limit = if R::INTERVAL > PUSHED {
        R::INTERVAL
    } else {
        PROMPT
    };
    for (what, took, limit) in [
        ("came or changed", &pending.came, limit),
        ("went", &pending.went, limit + R::LINGERS),
    ] {
        let at = |share| Duration::from_micros(took.value_at_quantile(share));
        let (count, p50, p99, max) = (took.len(), at(0.5), at(0.99), at(1.0));
        let _ = writeln!(
            std::io::stderr(),
            "{}: {count} {what}, known after {p50:?} (p50), {p99:?} (p99), {max:?} (max)",
            R::NAME
        );
        assert!(p50 < limit, "{what}: {p50:?}");
        // Few changes on a machine that does other things say little of what is rare.
        assert!(p99 < limit || changes < 10_000, "{what}: {p99:?}");
    }
    for id in row.list(&service).await.keys() {
        row.remove(&service, id).await;
    }
}

/// Picks after each change of `watch`, and notes when those `pending` are known.
async fn follow(watch: Watch, pending: Arc<Mutex<Pending>>) {
    let service = |_: &Arc<Instance>| service_fn(|()| async { Ok::<_, buttress::BoxError>(()) });
    let balance = Balance::new(watch.clone(), service);
    let mut version = 0;
    loop {
        version = watch.changed(version).await.version();
        // As a pick sees them.
        let picked = balance.instances();
        let picked = picked
            .iter()
            .filter(|view| !view.held)
            .map(|view| &view.instance);
        let picked = picked.map(|one| (one.id.clone(), one.weight)).collect();
        pending.lock().unwrap().seen(&picked, clock::now());
    }
}

/// The changes that are not known yet, and how long those took that are.
struct Pending {
    changes: BTreeMap<String, Change>,
    came: Histogram<u64>,
    went: Histogram<u64>,
}

#[derive(Default)]
struct Change {
    /// Its new weight, or nothing where it goes.
    wanted: Option<u32>,
    acknowledged: Option<Instant>,
    seen: Option<Instant>,
}

impl Default for Pending {
    fn default() -> Self {
        let changes = BTreeMap::new();
        let [came, went] = [(); 2].map(|()| Histogram::new(3).unwrap());
        Self {
            changes,
            came,
            went,
        }
    }
}

impl Pending {
    fn begin(&mut self, id: &str, wanted: Option<u32>) {
        let change = Change {
            wanted,
            ..Change::default()
        };
        self.changes.insert(id.to_owned(), change);
    }

    fn acknowledged(&mut self, id: &str) {
        self.changes.get_mut(id).unwrap().acknowledged = Some(clock::now());
        self.settle();
    }

    fn seen(&mut self, picked: &BTreeMap<String, u32>, now: Instant) {
        for (id, change) in &mut self.changes {
            if picked.get(id) == change.wanted.as_ref() {
                change.seen.get_or_insert(now);
            }
        }
        self.settle();
    }

    /// Counts those that are both acknowledged and seen, in whatever order.
    fn settle(&mut self) {
        self.changes.retain(|_, change| {
            let (Some(acknowledged), Some(seen)) = (change.acknowledged, change.seen) else {
                return true;
            };
            let took = seen.saturating_duration_since(acknowledged).as_micros();
            let all = match change.wanted {
                Some(_) => &mut self.came,
                None => &mut self.went,
            };
            all.record(took.try_into().unwrap()).unwrap();
            false
        });
    }
}

/// The same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn present(weights: &BTreeMap<String, Option<u32>>) -> BTreeMap<String, u32> {
    let there = weights.iter();
    there
        .filter_map(|(id, weight)| Some((id.clone(), (*weight)?)))
        .collect()
}

fn known(watch: &Watch) -> BTreeMap<String, u32> {
    let snapshot = watch.snapshot();
    let known = snapshot.instances().iter();
    known.map(|one| (one.id.clone(), one.weight)).collect()
}

/// How many instances there may be.
const IDS: usize = 60;
/// How many there are at least where all that can change is who is there.
const MOST: usize = 45;
/// After so many changes, what is known is compared with the registry's own list.
const BURST: u32 = 100;
/// Of a registry that tells of changes: how soon they are known.
const PROMPT: Duration = Duration::from_millis(50);
const PUSHED: Duration = Duration::from_secs(1);
