//! What packages are made of, as far as it costs nothing: `scripts/package.sh --test` makes, installs and starts them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use pooler::demo::process::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn pooler(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pooler"));
    command.args(arguments).env_remove("POOLER_UPSTREAM").current_dir(ROOT).stdin(Stdio::null());
    command.output().unwrap()
}

/// What it prints, and that it ends well.
fn told(arguments: &[&str]) -> String {
    let output = pooler(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// As `--help` lists them.
fn commands() -> Vec<String> {
    let help = told(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // What a long description goes on with is indented by more.
    let names = list.lines().filter(|line| !line.starts_with("   "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
    let names: Vec<_> = names.filter(|name| name != "help").collect();
    assert!(names.len() >= 5 && names.contains(&"check".to_owned()), "{names:?}");
    names
}

#[test]
fn every_command_has_its_manual_page_and_pooler_1_names_them_all() {
    let dir = TempDir::new(None).unwrap();
    let pages = dir.path().join("share/man1");
    assert_eq!(told(&["man", "--directory", pages.to_str().unwrap()]), "");
    let first = fs::read_to_string(pages.join("pooler.1")).unwrap();
    assert_eq!(told(&["man"]), first);
    let version = concat!("pooler ", env!("CARGO_PKG_VERSION"));
    for command in commands() {
        assert!(first.contains(&format!("pooler\\-{command}(1)")), "{command}");
        let page = fs::read_to_string(pages.join(format!("pooler-{command}.1"))).unwrap();
        assert!(page.contains(&format!(".TH pooler-{command} 1")) && page.contains(version), "{page}");
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert_eq!(fs::read_dir(&pages).unwrap().count(), commands().len() + 1);
    for part in ["/etc/pooler/pooler.toml", "POOLER_UPSTREAM", "SIGHUP", "EXIT STATUS"] {
        assert!(first.contains(part), "{part}");
    }
    // Arguments that clap knows nothing of.
    let page = fs::read_to_string(pages.join("pooler-pgbouncer.1")).unwrap();
    assert!(page.contains("\\-\\-reboot"), "{page}");
}

#[test]
fn a_directory_for_manual_pages_that_cannot_be_made_is_told() {
    let output = pooler(&["man", "--directory", "Cargo.toml/man"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("Cargo.toml/man"), "{text}");
}

#[test]
fn completions_know_every_command() {
    let dir = TempDir::new(None).unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = told(&["completions", shell]);
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        assert!(text.contains("takeover"), "{shell}");
    }
    let script = dir.path().join("pooler.bash");
    fs::write(&script, told(&["completions", "bash"])).unwrap();
    let complete = "source \"$1\"; COMP_WORDS=(pooler ch) COMP_CWORD=1; _pooler pooler ch pooler; echo \"${COMPREPLY[*]}\"";
    let output = Command::new("bash").args(["-c", complete, "bash"]).arg(&script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "check\n", "{output:?}");
}

#[test]
fn the_configuration_that_packages_install_is_accepted() {
    let dir = TempDir::new(None).unwrap();
    let text = fs::read_to_string(Path::new(ROOT).join("packaging/debian/pooler.toml")).unwrap();
    assert!(text.contains("\"/run/pooler\""));
    let file = dir.path().join("pooler.toml");
    let check = |text: &str| {
        fs::write(&file, text.replace("/run/pooler", dir.path().to_str().unwrap())).unwrap();
        told(&["check", "-c", file.to_str().unwrap()])
    };
    let told = check(&text);
    assert!(told.starts_with("warning: ") && told.contains("no user is configured"), "{told}");
    assert!(told.ends_with("ok (1 database, 0 users, 1 warning)\n"), "{told}");
    // What it has in comments is as good.
    let password = dir.path().join("admin.password");
    fs::write(&password, "secret\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line != "#";
    let text: String = text
        .lines()
        .map(|line| if setting(line) { &line[1..] } else { line })
        .fold(String::new(), |text, line| {
            text + &line.replace("${APP_PASSWORD}", "${APP_PASSWORD:-x}") + "\n"
        });
    let told = check(&text);
    assert!(told.ends_with("ok (1 database, 2 users, 0 warnings)\n"), "{told}");
}
