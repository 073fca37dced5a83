//! One shared service, its clones called on one thread and then on two: million calls a second, and the ratio.

use std::future::poll_fn;
use std::sync::Barrier;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use buttress::clock;
use buttress_benches::{Calls, contenders};
use tokio::task::unconstrained;

fn main() {
    println!(
        "{:<26}{:>10}{:>10}{:>8}",
        "Mcalls/s", "1 thread", "2", "ratio"
    );
    for contender in contenders(false) {
        let mut passes: Vec<[f64; 2]> = (0..PASSES)
            .map(|_| {
                [1, 2].map(|threads| rate((0..threads).map(|_| (contender.clone)()).collect()))
            })
            .collect();
        // One pass is the one whose ratio is the median: the two figures belong together.
        passes.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
        let [one, two] = passes[PASSES / 2];
        let name = contender.name;
        println!("{name:<26}{one:>10.2}{two:>10.2}{:>8.2}", two / one);
    }
}

/// Million calls a second by all threads together, each with a runtime of its own.
fn rate(threads: Vec<Calls>) -> f64 {
    let start = Barrier::new(threads.len());
    thread::scope(|scope| {
        let running: Vec<_> = threads
            .into_iter()
            .map(|calls| scope.spawn(|| run(calls, &start)))
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    })
}

fn run(mut calls: Calls, start: &Barrier) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(unconstrained(poll_fn(|cx| {
        calls(cx, BATCH);
        start.wait();
        let began = clock::now();
        let mut made = 0;
        while clock::now() - began < LENGTH {
            calls(cx, BATCH);
            made += BATCH;
        }
        Poll::Ready(made as f64 / (clock::now() - began).as_secs_f64() / 1e6)
    })))
}

const PASSES: usize = 9;
const LENGTH: Duration = Duration::from_millis(60);
const BATCH: u64 = 1000;
