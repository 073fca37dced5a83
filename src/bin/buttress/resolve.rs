use std::process::ExitCode;
use std::time::Duration;

use super::args::Ask;
use super::{Asked, EMPTY, FAILED, Failure, complain, draw, json, output, text};

/// Shows the service once. The exit code says whether there is an instance to call.
pub(super) async fn run(
    mut asked: Asked,
    ask: Ask,
    timeout: Duration,
) -> Result<ExitCode, Failure> {
    let resolved = asked.watch.resolved().await.is_ok();
    let said = asked.ear.said();
    let has_answered = said.named.is_some();
    let snapshot = asked.watch.snapshot();
    let view = asked.history.view(&snapshot, asked.watch.freshness(), said);
    if ask.json {
        output::write(&[json::line(&view)])?;
    } else if has_answered {
        output::write(&draw::table(&view, false))?;
    }
    Ok(match (resolved, has_answered) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) if view.failure.is_none() => ExitCode::from(EMPTY),
        (false, _) => {
            match &view.failure {
                Some(failure) => complain(&format!("{}: {}", view.registry, failure.error)),
                None => complain(&format!(
                    "{}: no answer in {}",
                    view.registry,
                    text::span(timeout)
                )),
            };
            ExitCode::from(FAILED)
        }
    })
}
