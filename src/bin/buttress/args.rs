use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::FAILED;
use super::source;

/// Shows what a client would see of a service, and why nobody calls an instance.
#[derive(Parser)]
#[command(name = "buttress", version, after_help = after())]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Shows a service's instances as they change, until Ctrl-C: a table on a terminal, else a line for each change.
    Watch(Ask),
    /// Asks once. Ends with 0 if there is an instance to call, 1 if there is none, 2 if nobody can say.
    Resolve {
        #[command(flatten)]
        ask: Ask,
        /// How long to wait for an answer.
        #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
        timeout: Duration,
    },
    /// Shows what a client that starts while the registry is down would find in FILE, its `snapshot_file`. The file is
    /// only read. Ends with 0 if it names an instance, 1 if it names none, 2 if it cannot be read.
    Snapshot {
        /// Where it is.
        file: PathBuf,
        /// Print a line of JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
pub(super) struct Ask {
    /// Where the registry is: `consul://127.0.0.1:8500`.
    // No parser of its own, whose errors would repeat it with its password.
    pub(super) url: String,
    /// The name by which clients call it.
    pub(super) service: String,
    /// Print a line of JSON for each change.
    #[arg(long)]
    pub(super) json: bool,
    /// The zone of the caller: instances elsewhere are marked.
    #[arg(long)]
    pub(super) zone: Option<String>,
    /// For how long the client uses what a registry said that fails since: `10m`. Default: for ever.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    pub(super) max_stale: Option<Duration>,
    /// Certificates in PEM to trust besides the system's.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// Says what is wrong with the arguments, or what was asked about them, without repeating a password.
pub(super) fn refused(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let mut text = error.to_string();
    for arg in std::env::args().filter(|arg| arg.contains('@')) {
        text = text.replace(&arg, &source::shown(&arg));
    }
    let _ = write!(io::stderr(), "{text}");
    ExitCode::from(FAILED)
}

/// What there is to say after the options.
fn after() -> String {
    let forms = source::forms();
    format!(
        "\
Registries, with +https after the scheme for TLS, which zookeeper and dns do without:
{forms}
Secrets: BUTTRESS_TOKEN for Kubernetes and Consul; for Consul CONSUL_HTTP_TOKEN too, if that is not set; BUTTRESS_USER and
BUTTRESS_PASSWORD for the others. With _FILE after the name, in the file that it names. A user and password work in the URL too, where other
users of the machine can see them."
    )
}
