//! Faults injected into real brokers and real consumer processes, and a checker that finds what was lost.
//!
//! `chaos` plays rounds. In each a broker of its own is started, a publisher and three consumers as processes of their own
//! work with it, one thing goes wrong, and what the processes wrote down is compared with what the broker confirmed and with
//! its dead letters.

mod broker;
mod checker;
mod consuming;
mod fault;
mod fleet;
mod inject;
mod inspect;
mod journal;
mod outcome;
mod planted;
mod process;
mod proxy;
mod publishing;
mod round;
mod rounds;
mod system;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use planted::Planted;
use rounds::Rounds;
use system::System;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// Breaks brokers and consumers while messages flow, and tells what was lost.
#[derive(Parser)]
#[command(name = "chaos", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    rounds: Rounds,
}

/// What the driver starts itself as.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Publisher {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        rate: u64,
    },
    #[command(hide = true)]
    Consumer {
        #[command(flatten)]
        place: Place,
        #[arg(long)]
        planted: Option<Planted>,
    },
}

/// Which broker a process works with, and where it writes down what it does.
#[derive(Args)]
struct Place {
    #[arg(long)]
    broker: System,
    #[arg(long)]
    url: String,
    #[arg(long)]
    journal: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        None => rounds::play(arguments.rounds).await,
        Some(role) => {
            log();
            play(role).await.map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn play(role: Role) -> Result<()> {
    match role {
        Role::Publisher { place, rate } => {
            publishing::publish(place.broker, &place.url, &place.journal, rate).await
        }
        Role::Consumer { place, planted } => {
            consuming::consume(place.broker, &place.url, &place.journal, planted).await
        }
    }
}

/// To standard error, which the driver keeps beside the journal.
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,lapin=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
