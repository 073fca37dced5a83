use std::process::ExitCode;
use std::time::Duration;

use buttress::clock;

use super::args::Ask;
use super::output::Output;
use super::{Asked, Failure};

/// Shows the service as it changes, until somebody has seen enough.
pub(super) async fn run(asked: Asked, ask: Ask) -> Result<ExitCode, Failure> {
    let shown = show(asked, Output::new(ask.json));
    tokio::select! {
        biased;
        ended = tokio::signal::ctrl_c() => {
            ended?;
            Ok(ExitCode::SUCCESS)
        }
        never = shown => Err(never),
    }
}

async fn show(mut asked: Asked, mut output: Output) -> Failure {
    let mut ear = asked.ear.listen();
    loop {
        clock::sleep(SETTLE).await;
        ear.mark_unchanged();
        let snapshot = asked.watch.snapshot();
        let view = asked
            .history
            .view(&snapshot, asked.watch.freshness(), asked.ear.said());
        if let Err(error) = output.show(&view) {
            return error.into();
        }
        tokio::select! {
            _ = asked.watch.changed(snapshot.version()) => {}
            _ = ear.changed() => {}
            () = clock::sleep(TICK) => {}
        }
    }
}

/// How often ages are shown anew, and whether the rest is still as it was.
const TICK: Duration = Duration::from_secs(1);
/// What a registry says is heard a moment before a client goes by it.
const SETTLE: Duration = Duration::from_millis(50);
