//! `jeton`: the broker, its embedded sandbox, and the command line that administers both.

mod broker;
mod commands;
mod config;
mod data_dir;
mod dev;
mod endpoints;
mod events;
mod exit;
mod issuers;
mod log;
mod managed_identity;
mod metrics;
mod output;
mod pulse;
mod reach;
mod reload;
mod sandbox;
mod sealing;
mod serve;
mod stop;
mod supervisor;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// A managed-identity token broker.
#[derive(Parser)]
#[command(name = "jeton", version, about, propagate_version = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a broker with an embedded sandbox authority and a demo workload: everything to try it, nothing to set up
    Dev(dev::DevArguments),
    /// Run the broker
    Serve(serve::ServeArguments),
    /// Run the sandbox authority and its key vault as a process of their own
    Sandbox(sandbox::SandboxArguments),
    /// Check a configuration and report every error at once
    CheckConfig(serve::CheckArguments),
    /// Managed identities: create, attach, rotate, disable, delete
    Identity(commands::identity::IdentityArguments),
    /// Workloads: the services that use identities
    Workload(commands::workload::WorkloadArguments),
    /// Authorities: the OAuth 2.0 servers at which identities live
    Authority(commands::authority::AuthorityArguments),
    /// Role assignments: who may use which identity for what
    Access(commands::access::AccessArguments),
    /// Access tokens
    Token(commands::token::TokenArguments),
    /// The audit log: verify, list, follow
    Audit(commands::audit::AuditArguments),
    /// The sealing key: rotate it
    Seal(commands::seal::SealArguments),
    /// How the broker is doing, the worst first; exit code 0 healthy, 1 degraded, 2 down
    Status(commands::status::StatusArguments),
    /// What happened since the broker started, and what happens
    Events(commands::events::EventsArguments),
    /// Open the operator's page in a browser, until it is interrupted
    Console(commands::console::ConsoleArguments),
    /// Make the broker's state what a file says; prints the differences first
    Apply(commands::apply::ApplyArguments),
    /// Print the broker's state as a file for `apply`
    Export(commands::apply::ExportArguments),
    /// Copy the registry of a data directory, while its broker runs, into a file
    Backup(commands::backup::BackupArguments),
    /// Make a data directory from such a file
    Restore(commands::backup::RestoreArguments),
    /// Print the variables that point an SDK of managed identities at this broker
    Env(commands::env::EnvArguments),
    /// Run a program with those variables set
    Run(commands::env::RunArguments),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let outcome = run(Arguments::parse().command);
    log::end();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // A standard error that takes nothing is no reason to lose the exit code.
            let _ = writeln!(std::io::stderr(), "error: {}", exit::described(&error));
            exit::code_of(&error)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    // While there is one thread.
    let sockets = match &command {
        Command::Serve(_) => supervisor::HandedOver::take_all()?,
        _ => supervisor::HandedOver::default(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // On one of the runtime's threads: what is loaded at the start is freed and replaced there later, and an allocator gives a thread
    // its own memory back, and not another's.
    let work = runtime.spawn(async {
        match command {
            Command::Dev(arguments) => Box::pin(dev::run(arguments)).await,
            Command::Serve(arguments) => Box::pin(serve::run(arguments, sockets)).await,
            Command::Sandbox(arguments) => sandbox::run(arguments).await,
            Command::CheckConfig(arguments) => serve::check(&arguments),
            Command::Identity(arguments) => commands::identity::run(arguments).await,
            Command::Workload(arguments) => commands::workload::run(arguments).await,
            Command::Authority(arguments) => commands::authority::run(arguments).await,
            Command::Access(arguments) => commands::access::run(arguments).await,
            Command::Token(arguments) => commands::token::run(arguments).await,
            Command::Audit(arguments) => return commands::audit::run(arguments).await,
            Command::Seal(arguments) => commands::seal::run(arguments).await,
            Command::Status(arguments) => return commands::status::run(arguments).await,
            Command::Events(arguments) => commands::events::run(arguments).await,
            Command::Console(arguments) => commands::console::run(arguments).await,
            Command::Apply(arguments) => commands::apply::apply(arguments).await,
            Command::Export(arguments) => commands::apply::export(arguments).await,
            Command::Backup(arguments) => commands::backup::backup(arguments).await,
            Command::Restore(arguments) => commands::backup::restore(arguments).await,
            Command::Env(arguments) => commands::env::env(arguments).await,
            Command::Run(arguments) => return commands::env::run(arguments).await,
            Command::Completions { shell } => {
                let mut script = vec![];
                clap_complete::generate(shell, &mut Arguments::command(), "jeton", &mut script);
                output::text(&String::from_utf8_lossy(&script))
            }
        }
        .map(|()| ExitCode::SUCCESS)
    });
    runtime.block_on(work)?
}
