//! The baseline as a process, and the program that puts load on it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_loadtest");

pub(crate) struct Baseline {
    pub(crate) process: Child,
    pub(crate) address: String,
}

impl Baseline {
    pub(crate) fn start(more: &[&str]) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(["baseline", "--identity", "identities/a", "--identity", "identities/b", "--scope", "s"])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Load for a second, if `more` does not say otherwise.
pub(crate) fn load(command: &str, address: &str, identities: &[&str], more: &[&str]) -> Output {
    let mut program = Command::new(PROGRAM);
    program.args([command, "--endpoint", address, "--scope", "s", "--quiet"]);
    for (option, value) in [("--warmup", "0.2"), ("--seconds", "1")] {
        if !more.contains(&option) {
            program.args([option, value]);
        }
    }
    program.args(identities.iter().flat_map(|identity| ["--identity", identity])).args(more).output().unwrap()
}
