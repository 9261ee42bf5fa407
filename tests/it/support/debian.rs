//! What scripts/lib.sh (`need_companions`) has unpacked of Debian's packages, and how it runs from there.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use super::{database::cache_dir, raw::PATIENCE};

/// A file of the distribution's packages.
pub fn here(path: &str) -> PathBuf {
    existing("here", path)
}

/// A file of a newer Debian's packages.
pub fn newer(path: &str) -> PathBuf {
    existing("newer", path)
}

fn existing(release: &str, path: &str) -> PathBuf {
    let path = cache_dir().join("debian").join(release).join(path);
    assert!(path.exists(), "no {}: run scripts/install.sh", path.display());
    path
}

/// Variables with which programs find what they need of their packages.
pub fn variables() -> Vec<(&'static str, String)> {
    let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let libraries = here(&format!("usr/lib/{multiarch}"));
    // Modules in C are for one version of perl.
    let perl = std::fs::read_dir(libraries.join("perl5")).unwrap().next().unwrap().unwrap().path();
    vec![
        ("PYTHONPATH", text(here("usr/lib/python3/dist-packages"))),
        ("LD_LIBRARY_PATH", format!("{}:{}", text(libraries), text(here(&format!("lib/{multiarch}"))))),
        ("PERL5LIB", format!("{}:{}", text(perl), text(here("usr/share/perl5")))),
        ("MUNIN_LIBDIR", text(here("usr/share/munin"))),
    ]
}

/// Runs a program to its end.
pub fn run(program: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).envs(variables()).envs(more.iter().copied()).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// The body of what an HTTP server at this port answers; `None` if it does not, or with an error.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}
