//! A process in PgBouncer's place, called as that and with its file: pooler, or a real one.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
};

use pooler::demo::process::{Guarded, RunAs, TempDir, wait_until};

use super::{
    database::{Database, password_of},
    raw::PATIENCE,
};

/// A process that reads pgbouncer.ini.
pub struct AsPgbouncer {
    _process: Guarded,
    dir: TempDir,
}

impl AsPgbouncer {
    /// With these lines at the end of the file. Its user `app` may use the console, too.
    pub fn start(program: &Path, database: &Database, port: u16, lines: &str) -> Self {
        let who = RunAs::unprivileged().unwrap();
        let dir = TempDir::new(who).unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            path.display().to_string()
        };
        let users = file("users", &format!("\"app\" \"{}\"\n", password_of("app")));
        let ini = file(
            "p.ini",
            &format!(
                "[databases]\n{} = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\npool_mode = transaction\n\
                 admin_users = app\n{lines}",
                database.name, database.port
            ),
        );
        let called = dir.path().join("pgbouncer");
        symlink(program, &called).unwrap();
        let log = file("log", "");
        if let Some(who) = who {
            chown(&log, Some(who.uid), Some(who.gid)).unwrap();
        }
        let arguments = [called.to_str().unwrap(), ini.as_str()];
        let process = Guarded::spawn(who, &arguments, Path::new(&log), "INT").unwrap();
        let this = Self { _process: process, dir };
        let up = wait_until(PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok());
        assert!(up.is_some(), "{} does not listen:\n{}", program.display(), this.log());
        this
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}
