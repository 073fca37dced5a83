//! What the cache of instances takes and gives at scale, each figure beside its limit. `scripts/discovery` runs it.
//!
//! A registry inside the process names 20 instances of each of 500 services and changes one of them a thousand times a
//! second, as the whole list of a service each time. Beside that, a thread loads snapshots.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use arc_swap::ArcSwap;
use buttress::discovery::{BoxFuture, RegistryError, Snapshot, SnapshotFile, Updates, Watch};
use buttress::registries::memory::Memory;
use buttress::{Instance, Registry, Resolver, clock};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

fn main() {
    let mut table = Vec::new();
    table.push(memory(
        "bytes an instance, 500 services of 20",
        SERVICES,
        EACH,
    ));
    table.extend(changes());
    table.push(memory("bytes an instance, 1 service of 100 000", 1, MANY));
    table.extend(one_large());
    println!("{:<52}{:>12}{:>12}", "", "measured", "limit");
    for Row {
        what,
        measured,
        limit,
    } in &table
    {
        let limit = limit.map_or_else(String::new, |limit| format!("{limit:.1}"));
        println!("{what:<52}{measured:>12.1}{limit:>12}");
    }
    let is_over = |row: &Row| row.limit.is_some_and(|limit| row.measured > limit);
    let over: Vec<_> = table.iter().filter(|row| is_over(row)).collect();
    for row in &over {
        println!("over the limit: {}", row.what);
    }
    std::process::exit(i32::from(!over.is_empty()));
}

struct Row {
    what: &'static str,
    measured: f64,
    limit: Option<f64>,
}

fn row(what: &'static str, measured: f64, limit: impl Into<Option<f64>>) -> Row {
    Row {
        what,
        measured,
        limit: limit.into(),
    }
}

/// What is on the heap of a resolver that knows so many, the tasks that watch included.
fn memory(what: &'static str, services: usize, each: usize) -> Row {
    let runtime = runtime();
    let generator = Generator::new(services, each);
    let mut kept = None;
    let allocated = allocation_counter::measure(|| {
        kept = Some(runtime.block_on(watches(&generator, None)));
    });
    row(
        what,
        allocated.bytes_current as f64 / (services * each) as f64,
        1024.0,
    )
}

/// A thousand changes a second for some seconds, with the file on disk, and a thread that reads.
fn changes() -> [Row; 6] {
    let generator = Generator::new(SERVICES, EACH);
    let is_over = AtomicBool::new(false);
    let given = Mutex::new(Vec::new());
    let folder = tempfile::tempdir().expect("a folder");
    let file = SnapshotFile::new(folder.path().join("instances.snapshot"));

    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            runtime().block_on(async {
                let watches = watches(&generator, Some(file.clone())).await;
                given
                    .lock()
                    .expect("no panic")
                    .extend(watches.iter().cloned());
                let versions = || {
                    watches
                        .iter()
                        .map(|it| it.snapshot().version())
                        .sum::<u64>()
                };
                let (began, cpu, before) = (clock::now(), cpu(), versions());
                let mut made = 0;
                while clock::now() - began < LASTS {
                    clock::sleep(Duration::from_millis(1)).await;
                    let due = (clock::now() - began).as_millis() as usize;
                    for _ in made..due {
                        generator.change();
                    }
                    made = made.max(due);
                }
                let took = (clock::now() - began).as_secs_f64();
                let used = self::cpu().saturating_sub(cpu).as_secs_f64();
                is_over.store(true, Ordering::Relaxed);
                ((versions() - before) as f64 / took, 100.0 * used / took)
            })
        });
        let reader = thread::Builder::new().name(READER.to_owned());
        let reader = reader.spawn_scoped(scope, || {
            let watches = loop {
                let given = given.lock().expect("no panic").clone();
                if !given.is_empty() {
                    break given;
                }
                thread::yield_now();
            };
            // Each of its own: what is loaded just before would be at hand.
            let bare: Vec<_> = watches
                .iter()
                .map(|it| ArcSwap::from_pointee(Snapshot::clone(&it.snapshot())))
                .collect();
            let (mut ours, mut theirs, mut nothing) = (Vec::new(), Vec::new(), Vec::new());
            while !is_over.load(Ordering::Relaxed) && nothing.len() < SAMPLES {
                for (watch, bare) in watches.iter().zip(&bare) {
                    ours.push(timed(|| drop(watch.snapshot())));
                    theirs.push(timed(|| drop(bare.load_full())));
                    nothing.push(timed(|| ()));
                }
            }
            [ours, theirs, nothing].map(high)
        });
        let reader = reader.expect("a thread");
        let (rate, share) = writer.join().expect("no panic");
        let [ours, theirs, nothing] = reader.join().expect("no panic");
        [
            row("changes a second that became a snapshot", rate, None),
            row(
                "% of a core, registry and file on disk included",
                share,
                25.0,
            ),
            row("ns to load a snapshot, p99.9", ours, 1000.0),
            row("ns to load a bare ArcSwap, p99.9", theirs, None),
            row("ns to look at the clock twice, p99.9", nothing, None),
            row(
                "ms to begin from the file, the registry down",
                begin(&file),
                100.0,
            ),
        ]
    })
}

/// How long the first instances take that are read from `file`, with a registry that is down: the median of some starts.
fn begin(file: &SnapshotFile) -> f64 {
    let mut took = [(); 11].map(|()| {
        runtime().block_on(async {
            let down = Memory::new();
            down.set_down(true);
            let began = clock::now();
            let watch = Resolver::new(down).snapshot_file(file.clone()).watch("7");
            let snapshot = watch.resolved().await.expect("what was written");
            assert_eq!(snapshot.instances().len(), EACH);
            (clock::now() - began).as_secs_f64() * 1e3
        })
    });
    took.sort_by(f64::total_cmp);
    took[took.len() / 2]
}

/// A hundred thousand instances of one service.
fn one_large() -> [Row; 2] {
    runtime().block_on(async {
        let generator = Generator::new(1, MANY);
        let began = clock::now();
        let watch = watches(&generator, None).await.remove(0);
        let first = clock::now() - began;
        let mut longest = Duration::ZERO;
        for _ in 0..5 {
            let began = clock::now();
            let version = watch.snapshot().version();
            generator.change();
            assert_eq!(watch.changed(version).await.instances().len(), MANY);
            longest = longest.max(clock::now() - began);
        }
        [
            row(
                "ms to know 100 000 instances",
                first.as_secs_f64() * 1e3,
                None,
            ),
            row(
                "ms to take in a change of one of them",
                longest.as_secs_f64() * 1e3,
                None,
            ),
        ]
    })
}

async fn watches(generator: &Generator, file: Option<SnapshotFile>) -> Vec<Watch> {
    let mut resolver = Resolver::new(generator.clone());
    if let Some(file) = file {
        resolver = resolver.snapshot_file(file);
    }
    let names = 0..generator.services.len();
    let watches: Vec<_> = names.map(|n| resolver.watch(n.to_string())).collect();
    for watch in &watches {
        watch.resolved().await.expect("instances");
    }
    watches
}

/// A registry whose services are numbers, and of which one instance after another gets a new weight.
#[derive(Clone)]
struct Generator {
    each: usize,
    services: Arc<[watch::Sender<usize>]>,
    made: Arc<AtomicUsize>,
}

impl Generator {
    fn new(services: usize, each: usize) -> Self {
        Self {
            each,
            services: (0..services).map(|_| watch::Sender::new(0)).collect(),
            made: Arc::default(),
        }
    }

    fn change(&self) {
        let service = self.made.fetch_add(1, Ordering::Relaxed) % self.services.len();
        self.services[service].send_modify(|changes| *changes += 1);
    }
}

impl Registry for Generator {
    fn name(&self) -> &str {
        "generator"
    }

    fn watch(&self, service: &str, updates: Updates) -> BoxFuture<'static, RegistryError> {
        let each = self.each;
        let service: usize = service.parse().expect("a number");
        let mut changes = self.services[service].subscribe();
        Box::pin(async move {
            loop {
                let count = *changes.borrow_and_update();
                let one = |n| instance(service, n, 1 + u32::from(n == count % each));
                updates.instances((0..each).map(one).collect()).await;
                // The sender lives as long as the registry.
                let _ = changes.changed().await;
            }
        })
    }
}

fn instance(service: usize, n: usize, weight: u32) -> Instance {
    let host = format!("10.{}.{}.{}", service % 256, n / 256 % 256, n % 256);
    // As long as they are: what was parsed has no room to grow.
    let exact = |text: String| text.into_boxed_str().into_string();
    let id = format!("service-{service}-{n:05}");
    Instance::new(exact(id), exact(host), 8080)
        .zone("eu-west-1a")
        .weight(weight)
        .metadata("version", "2026.11.1")
        .metadata("commit", "0123456789abcdef")
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// How long every thread but the reader has been on a processor.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux");
    let used = tasks.flatten().filter_map(|task| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let spent = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let nanos: u64 = spent.split(' ').next()?.parse().ok()?;
        (name.trim() != READER).then_some(nanos)
    });
    Duration::from_nanos(used.sum())
}

fn timed(run: impl FnOnce()) -> u32 {
    let began: Instant = clock::now();
    run();
    (clock::now() - began).as_nanos() as u32
}

fn high(mut samples: Vec<u32>) -> f64 {
    let at = samples.len() * 999 / 1000;
    f64::from(*samples.select_nth_unstable(at).1)
}

const SERVICES: usize = 500;
const EACH: usize = 20;
const MANY: usize = 100_000;
const LASTS: Duration = Duration::from_secs(70);
const SAMPLES: usize = 10_000_000;
const READER: &str = "reader";
