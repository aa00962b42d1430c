//! A short run on a real Redis holds, and one of a transport that loses events does not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

/// A run of a few seconds, in a directory of its own.
fn run(name: &str, rest: &[&str]) -> Output {
    let directory = std::env::temp_dir().join(format!("polybus-rig-{name}-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_torture"))
        .args([
            "run",
            "--transport",
            "redis",
            "--minutes",
            "0.1",
            "--seed",
            "1",
        ])
        .args(["--window", "2-3", "--heal", "2", "--rate", "200"])
        .arg("--directory")
        .arg(&directory)
        .args(rest)
        .output()
        .unwrap();
    for file in ["report.txt", "report.json", "plot.svg"] {
        assert!(
            directory.join(file).is_file(),
            "{file} is written: {output:?}"
        );
    }
    std::fs::remove_dir_all(&directory).unwrap();
    output
}

#[test]
fn a_run_over_kills_holds() {
    let output = run("holds", &["--faults", "kill"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("C1 nothing lost        holds"), "{text}");
}

#[test]
fn the_order_of_keys_is_judged_across_processes_with_partitions() {
    let output = run("ordered", &["--faults", "kill", "--partitions", "4"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("C4 order of keys       holds"), "{text}");
}

#[cfg(feature = "mutants")]
#[test]
fn partitions_that_are_read_without_a_lease_are_found_out() {
    let broken = ["--faults", "none", "--mutant", "no-lease"];
    let output = run("leases", &[&broken[..], &["--partitions", "4"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("C4 order of keys       BROKEN"), "{text}");
}

#[cfg(feature = "mutants")]
#[test]
fn a_transport_that_drops_events_is_found_out() {
    let output = run("drops", &["--faults", "none", "--mutant", "drop-some"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("C1 nothing lost        BROKEN"), "{text}");
}

#[test]
fn what_it_does_not_know_it_refuses() {
    for words in [
        ["--transport", "rabbit"],
        ["--faults", "sleep"],
        ["--speed", "1"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_torture"))
            .args(words)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error: "), "{text}");
    }
}
