//! Shows what a client would see of a service, and why, and what is in its file. See `docs/cli.md`.

mod args;
mod credentials;
mod draw;
mod json;
mod openers;
mod output;
mod place;
mod resolve;
mod said;
mod snapshot;
mod source;
mod tap;
mod text;
mod view;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use buttress::Resolver;
use buttress::discovery::Watch;
use clap::Parser;

use self::args::{Args, Ask, Command};
use self::credentials::Credentials;
use self::said::Ear;
use self::tap::Tap;
use self::view::History;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return args::refused(&error),
    };
    match run(args.command) {
        Ok(code) => code,
        // Whoever read has seen enough.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Output(error)) => complain(&format!("cannot write: {error}")),
        Err(Failure::Told(message)) => complain(&message),
    }
}

/// Why there is nothing to show.
enum Failure {
    /// What to say of it.
    Told(String),
    /// It cannot be written.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Watch(ask) => watch::run(Asked::new(&ask, Duration::ZERO)?, ask).await,
            Command::Resolve { ask, timeout } => {
                resolve::run(Asked::new(&ask, timeout)?, ask, timeout).await
            }
            Command::Snapshot { file, json } => snapshot::run(&file, json),
        }
    })
}

/// A service that is asked for, as a client does it.
struct Asked {
    watch: Watch,
    ear: Ear,
    history: History,
}

impl Asked {
    fn new(ask: &Ask, patience: Duration) -> Result<Self, Failure> {
        if ask.service.contains("://") {
            let message = "the URL of the registry comes first, then the name of the service";
            return Err(Failure::Told(message.to_owned()));
        }
        let credentials = Credentials::from_environment().map_err(Failure::Told)?;
        let registry = source::open(&ask.url, &credentials, ask.ca.as_deref());
        let registry = registry.map_err(Failure::Told)?;

        let ear = Ear::new(registry.name());
        let tap = Tap::new(registry, ear.clone());
        let mut resolver = Resolver::new(tap)
            .first_answer(patience)
            .observe(ear.clone());
        if let Some(age) = ask.max_stale {
            resolver = resolver.max_stale(age);
        }
        Ok(Self {
            watch: resolver.watch(&*ask.service),
            history: History::new(ask.zone.clone()),
            ear,
        })
    }
}

/// Says on the standard error what is wrong.
fn complain(message: &str) -> ExitCode {
    // Where that cannot be written, the exit code says it.
    let _ = writeln!(io::stderr(), "buttress: {}", text::message(message));
    ExitCode::from(FAILED)
}

/// The exit code where there is no instance to call.
const EMPTY: u8 = 1;
/// The exit code for what went wrong; that of wrong arguments too.
const FAILED: u8 = 2;
