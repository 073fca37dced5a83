//! What a layer adds to a call, in time. `scripts/overhead` adds instructions, clock reads and allocations.
//!
//! Without arguments: a line for each contender, its name and the median of nanoseconds a call with an inner service
//! that answers at once and with one that is pending once. `overhead NAME ready|pending CALLS` makes so many calls and
//! measures nothing.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use buttress::clock;
use buttress_benches::{Calls, Contender, contenders};
use tokio::task::unconstrained;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = [contenders(false), contenders(true)];
    in_runtime(|cx| match &arguments[..] {
        [] => measure(cx, &all),
        [name, inner, count] => {
            let found = all[usize::from(inner == "pending")]
                .iter()
                .find(|it| it.name == name);
            let mut calls = (found.expect("a contender's name").clone)();
            calls(cx, count.parse().expect("a number of calls"));
        }
        _ => panic!("no arguments, or NAME ready|pending CALLS"),
    });
}

/// Inside a runtime, for its timers, but without a scheduler between the caller and the call.
fn in_runtime(mut run: impl FnMut(&mut Context<'_>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(unconstrained(poll_fn(|cx| {
        run(cx);
        Poll::Ready(())
    })));
}

/// Short samples in turn, so that what disturbs the machine disturbs all of them.
fn measure(cx: &mut Context<'_>, all: &[Vec<Contender>; 2]) {
    let names: Vec<_> = all[0].iter().map(|it| it.name).collect();
    let mut all: Vec<Sampled> = all
        .iter()
        .flatten()
        .map(|it| Sampled::new(cx, it))
        .collect();
    for _ in 0..SAMPLES {
        for one in &mut all {
            let took = one.time(cx);
            one.samples.push(took);
        }
    }
    let medians: Vec<f64> = all.iter_mut().map(Sampled::median).collect();
    let (ready, pending) = medians.split_at(names.len());
    for ((name, ready), pending) in names.iter().zip(ready).zip(pending) {
        println!("{name}\t{ready:.1}\t{pending:.1}");
    }
}

struct Sampled {
    calls: Calls,
    /// How many calls a sample takes.
    count: u64,
    samples: Vec<f64>,
}

impl Sampled {
    fn new(cx: &mut Context<'_>, contender: &Contender) -> Self {
        let mut new = Self {
            calls: (contender.clone)(),
            count: 1000,
            samples: Vec::new(),
        };
        new.time(cx);
        new.count = (SAMPLE.as_nanos() as f64 / new.time(cx).max(0.1)) as u64;
        new
    }

    /// Nanoseconds a call.
    fn time(&mut self, cx: &mut Context<'_>) -> f64 {
        let began = clock::now();
        (self.calls)(cx, self.count);
        (clock::now() - began).as_nanos() as f64 / self.count as f64
    }

    fn median(&mut self) -> f64 {
        self.samples.sort_by(f64::total_cmp);
        self.samples[self.samples.len() / 2]
    }
}

const SAMPLES: usize = 101;
const SAMPLE: Duration = Duration::from_millis(2);
