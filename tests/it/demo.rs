//! `pooler demo` from start to end.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use pooler::demo::process::{signal, wait_until};

use crate::support::raw::PATIENCE;

#[test]
fn demo_shows_its_servers_and_leaves_nothing_behind() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_pooler"))
        .args(["demo", "--clients", "40", "--pool-size", "5", "--seconds", "4"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.by_ref().take_while(|line| !line.contains("Ctrl-C")).collect();
    let text = said.join("\n");
    let dir = said.iter().find_map(|line| line.strip_prefix("  in ")).unwrap_or_else(|| panic!("{text}"));
    let progress: Vec<&String> =
        said.iter().filter(|line| line.contains("connections at PostgreSQL: ")).collect();
    assert!(!progress.is_empty(), "{text}");
    assert!(progress.iter().all(|line| line.ends_with(": 5")), "{text}");
    assert!(said.iter().any(|line| line.contains("| app") && line.contains("| transaction")), "{text}");

    let top = lines.find_map(|line| line.split_once("pooler top ").map(|(_, url)| url.to_owned())).unwrap();
    let top = Command::new(env!("CARGO_BIN_EXE_pooler")).args(["top", "--once", &top]).output().unwrap();
    let seen = String::from_utf8_lossy(&top.stdout).into_owned();
    assert!(seen.contains("app") && seen.contains("transaction"), "{top:?}");

    signal(demo.id(), "INT").unwrap();
    assert!(lines.any(|line| line.contains("nothing is left behind")));
    assert!(demo.wait().unwrap().success());
    assert!(!std::path::Path::new(dir).exists());
    let running = || Command::new("grep").args(["-lsa", dir]).args(command_lines()).output().unwrap().stdout;
    assert!(wait_until(PATIENCE, || running().is_empty().then_some(())).is_some());
}

/// The command lines of every other process, as files.
fn command_lines() -> Vec<String> {
    let all =
        std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    all.filter(|name| name.parse::<u32>().is_ok()).map(|pid| format!("/proc/{pid}/cmdline")).collect()
}
