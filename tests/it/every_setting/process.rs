//! Where it listens, what it writes, and how its sockets are.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt as _, PermissionsExt as _},
    },
    process::Command,
};

use rustix::{
    net::{getpeername, getsockname, sockopt},
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};

use super::{Case, Ground, SOON, case, yes};
use crate::support::raw::Raw;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case("listen_addr", "", "127.0.0.1, 127.0.0.2", listens_elsewhere, ["no", "yes"]),
    case("listen_backlog", "", "7", backlog, ["128", "7"]),
    case("listen_port", "", "@OTHER@", listens, ["yes", "no"]),
    case("so_reuseport", "", "1", shares_its_port, ["no", "yes"]),
    case("unix_socket_dir", "", "/tmp", socket_of_tmp, ["no", "yes"]),
    case("unix_socket_mode", "", "0700", socket_mode, ["777", "700"]),
    case("log_connections", "", "0", login_is_logged, ["yes", "no"]),
    case("log_disconnections", "", "0", end_is_logged, ["yes", "no"]),
    case("log_pooler_errors", "", "0", error_is_logged, ["yes", "no"]),
    case("logfile", "", "@DIR@/p.log", log_file, ["no", "yes"]),
    case("pidfile", "", "@DIR@/p.pid", pid_file, ["no", "yes"]),
    case("tcp_keepalive", "", "0", |ground| yes(sockopt::socket_keepalive(of_client(ground)).unwrap()), ["yes", "no"]),
    case("tcp_keepidle", "", "77", |ground| sockopt::tcp_keepidle(of_client(ground)).unwrap().as_secs().to_string(), ["7200", "77"]),
    case("tcp_keepintvl", "", "33", |ground| sockopt::tcp_keepintvl(of_client(ground)).unwrap().as_secs().to_string(), ["75", "33"]),
    case("tcp_keepcnt", "", "5", |ground| sockopt::tcp_keepcnt(of_client(ground)).unwrap().to_string(), ["9", "5"]),
    case("tcp_user_timeout", "", "1500", |ground| sockopt::tcp_user_timeout(of_client(ground)).unwrap().to_string(), ["0", "1500"]),
    case("verbose", "", "2", detail_is_logged, ["no", "yes"]),
];

fn listens(ground: &Ground) -> String {
    yes(TcpStream::connect(("127.0.0.1", ground.stage.port)).is_ok())
}

fn listens_elsewhere(ground: &Ground) -> String {
    yes(TcpStream::connect(("127.0.0.2", ground.stage.port)).is_ok())
}

fn backlog(ground: &Ground) -> String {
    let port = format!("sport = :{}", ground.stage.port);
    let output = Command::new("ss").args(["-ltnH", &port]).output().expect("ss");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().nth(2).unwrap().to_owned()
}

/// Its sockets: all that it has open.
fn sockets(ground: &Ground) -> Vec<OwnedFd> {
    let pid = ground.pid();
    let process = pidfd_open(Pid::from_raw(pid.cast_signed()).unwrap(), PidfdFlags::empty()).unwrap();
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
    let sockets = files.filter(|file| {
        fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    });
    let numbers = sockets.map(|file| file.file_name().to_str().unwrap().parse().unwrap());
    numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()).collect()
}

fn shares_its_port(ground: &Ground) -> String {
    let own = SocketAddr::from(([127, 0, 0, 1], ground.stage.port));
    let listens = |socket: &OwnedFd| {
        getsockname(socket).is_ok_and(|name| SocketAddr::try_from(name) == Ok(own))
            && getpeername(socket).is_err()
    };
    let listener = sockets(ground).into_iter().find(listens).unwrap();
    yes(sockopt::socket_reuseport(&listener).unwrap())
}

/// The pooler's end of a new client's connection.
fn of_client(ground: &Ground) -> OwnedFd {
    let stream = TcpStream::connect(("127.0.0.1", ground.stage.port)).unwrap();
    let client = stream.local_addr().unwrap();
    let leads_there = |socket: &OwnedFd| {
        getpeername(socket)
            .is_ok_and(|name| name.is_some_and(|name| SocketAddr::try_from(name) == Ok(client)))
    };
    let found = pooler::demo::process::wait_until(SOON, || sockets(ground).into_iter().find(leads_there));
    found.expect("a socket")
}

fn socket_of_tmp(ground: &Ground) -> String {
    yes(fs::metadata(ground.stage.filled("/tmp/.s.PGSQL.@PORT@")).is_ok())
}

fn socket_mode(ground: &Ground) -> String {
    let path = ground.stage.path(&ground.stage.filled(".s.PGSQL.@PORT@"));
    format!("{:o}", fs::metadata(path).unwrap().permissions().mode() & 0o777)
}

fn login_is_logged(ground: &Ground) -> String {
    yes(ground.logged(|| drop(ground.login()), "user=app", SOON))
}

fn end_is_logged(ground: &Ground) -> String {
    yes(ground.logged(|| drop(ground.login()), "/app@- closing because: ", SOON))
}

fn error_is_logged(ground: &Ground) -> String {
    let fails = || {
        let mut raw = Raw::open(ground.stage.port);
        raw.try_login("app", &ground.database.name, "wrong", &[]).unwrap_err();
    };
    yes(ground.logged(fails, "pooler error: ", SOON))
}

fn detail_is_logged(ground: &Ground) -> String {
    yes(ground.logged(|| drop(ground.login().sql("SELECT 1")), "DEBUG", SOON))
}

/// One that has been there counts if something has been written to it just now.
fn log_file(ground: &Ground) -> String {
    let length = || fs::metadata(ground.stage.path("p.log")).map_or(0, |metadata| metadata.size());
    let before = length();
    drop(ground.login());
    yes(pooler::demo::process::wait_until(SOON, || (length() > before).then_some(())).is_some())
}

fn pid_file(ground: &Ground) -> String {
    yes(ground.stage.path("p.pid").exists())
}
