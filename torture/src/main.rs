//! Kills, cuts and stalls a bus of several processes, and judges what came of its events.
//!
//! `./scripts/torture --help` says how to use it. The program starts itself again in other roles: a
//! producer and consumers, each of which writes a journal. It breaks them, the server and the network
//! between them as the seed says, waits until everything is handled, and reads the journals and the
//! server's log.

mod checks;
mod children;
mod conductor;
mod consumer;
mod journal;
mod judge;
#[cfg(feature = "mutants")]
mod mutants;
mod nemesis;
mod options;
mod plot;
mod producer;
mod report;
mod server;
mod task;
mod wrapped;

use std::process::ExitCode;

use options::Options;
use task::Task;

/// What goes wrong in the rig itself ends the run.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new();
    let result = runtime.map_err(Failure::from).and_then(|runtime| {
        let done = runtime.block_on(run(&words));
        // A role that must not end in good order would wait for its blocking threads.
        runtime.shutdown_background();
        done
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every check held.
async fn run(words: &[&str]) -> Result<bool, Failure> {
    match words {
        ["produce", task] => producer::run(Task::parse(task)?).await.map(|()| true),
        ["consume", task] => consumer::run(Task::parse(task)?).await.map(|()| true),
        ["--help" | "-h" | "help", ..] => {
            println!("{}", options::HELP);
            Ok(true)
        }
        ["mutants", rest @ ..] => kill_table(rest).await,
        ["judge", directory] => judge::again(directory.as_ref()),
        ["run", rest @ ..] | rest => {
            let options = Options::parse(rest)?;
            let verdict = conductor::run(&options).await?;
            print!("{}", verdict.text());
            Ok(verdict.holds())
        }
    }
}

#[cfg(feature = "mutants")]
async fn kill_table(words: &[&str]) -> Result<bool, Failure> {
    mutants::kill_table(words).await
}

#[cfg(not(feature = "mutants"))]
async fn kill_table(_: &[&str]) -> Result<bool, Failure> {
    std::future::ready(Err("mutants need the feature `mutants`".into())).await
}
