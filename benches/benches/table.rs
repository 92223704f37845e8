//! Prints what the other benchmarks measured: for each group its first entry, and how many times as long that takes as each of the
//! others; then what is promised, and whether it holds. With JETON_STRICT set, what does not hold is a failure.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a benchmark")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use benches::figures::FIGURES;
use serde_json::Value;

struct Measured {
    group: String,
    name: String,
    nanoseconds: f64,
    at: SystemTime,
}

fn main() -> ExitCode {
    // target/<profile>/deps/table-<hash>
    let program = std::env::current_exe().expect("the program's path");
    let folder = program.ancestors().nth(3).expect("it lies in the target folder").join("criterion");
    let mut found = vec![];
    look_into(&folder, &mut found);
    found.sort_by_key(|measured| measured.at);
    println!("{:<48} {:<38} {:>11} {:>12} {:>13}", "", "", "one", "a second", "first / this");
    let mut first: Option<&Measured> = None;
    for measured in &found {
        let same = first.filter(|first| first.group == measured.group);
        let group = if same.is_some() { "" } else { &measured.group };
        let head = same.unwrap_or(measured);
        first = Some(head);
        println!(
            "{group:<48} {:<38} {:>11} {:>12.0} {:>13.2}",
            measured.name,
            shown(measured.nanoseconds),
            1e9 / measured.nanoseconds,
            head.nanoseconds / measured.nanoseconds,
        );
    }
    println!("\n{:<80} {:>11} {:<18} promised", "", "median", "(quartiles)");
    let lines = FIGURES.each_ref().map(|figure| figure.line());
    lines.iter().for_each(|(line, _)| println!("{line}"));
    let missed = lines.iter().filter(|(_, holds)| !holds).count();
    let strict = std::env::var_os("JETON_STRICT").is_some_and(|set| !set.is_empty());
    if strict && missed > 0 {
        println!("{missed} do not hold, or were not measured");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Criterion keeps the latest figures of each benchmark in a folder `new`.
fn look_into(folder: &Path, found: &mut Vec<Measured>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.map(|entry| entry.expect("a folder's entry").path()).filter(|path| path.is_dir()) {
        match path.ends_with("new") {
            true => found.extend(read(&path)),
            false => look_into(&path, found),
        }
    }
}

fn read(folder: &Path) -> Option<Measured> {
    let json = |path: &PathBuf| serde_json::from_slice::<Value>(&fs::read(path).ok()?).ok();
    let (what, estimates) = (json(&folder.join("benchmark.json"))?, folder.join("estimates.json"));
    let text = |member: &str| what[member].as_str().map(str::to_owned);
    Some(Measured {
        group: text("group_id")?,
        name: text("function_id").or_else(|| text("value_str")).unwrap_or_default(),
        nanoseconds: json(&estimates)?["median"]["point_estimate"].as_f64()?,
        at: fs::metadata(&estimates).and_then(|data| data.modified()).ok()?,
    })
}

fn shown(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.1} ns"),
        1e3..1e6 => format!("{:.2} us", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}
