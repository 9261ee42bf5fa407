//! Who the process is to the system: its user, its place in the background, its pid file, what systemd is told.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::OpenOptionsExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::kill,
    unistd::{Pid, Uid, User, setgid, setgroups, setuid},
};

/// Why the process is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("could not find user '{0}' to switch to")]
    NoUser(String),
    #[error("failed to assume identity of user '{user}': {source}")]
    Switch { user: String, source: Errno },
    #[error("pidfile '{}' exists, another instance running?", .0.display())]
    Running(PathBuf),
    #[error("could not open pidfile '{}': {source}", path.display())]
    PidFile { path: PathBuf, source: io::Error },
    #[error("failed to go into the background: {0}")]
    Daemon(Errno),
}

/// Whether it is root.
pub(super) fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes a user, with its primary group and no others. Before there are other threads: each has a user of its own.
pub(super) fn become_user(name: &str) -> Result<(), IdentityError> {
    let user = User::from_name(name).ok().flatten().ok_or_else(|| IdentityError::NoUser(name.to_owned()))?;
    if Uid::effective() == user.uid && !is_root() {
        return Ok(());
    }
    setgroups(&[user.gid])
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|source| IdentityError::Switch { user: name.to_owned(), source })
}

/// Goes on as a process of its own, without a terminal. Before there are other threads: they stay behind.
pub(super) fn go_into_background() -> Result<(), IdentityError> {
    let (keep_directory, close_streams) = (true, false);
    nix::unistd::daemon(keep_directory, close_streams).map_err(IdentityError::Daemon)
}

/// The file with the process id; removed at the end.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Fails if the process that the file names runs, or if the file names none. Removes what was left behind.
    pub(super) fn check(path: &Path) -> Result<(), IdentityError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(IdentityError::PidFile { path: path.to_owned(), source }),
        };
        let pid = text.trim().parse::<i32>().ok().filter(|pid| *pid > 0);
        let Some(pid) = pid else { return Err(IdentityError::Running(path.to_owned())) };
        if kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH) {
            return Err(IdentityError::Running(path.to_owned()));
        }
        tracing::info!("stale pidfile, removing");
        fs::remove_file(path).map_err(|source| IdentityError::PidFile { path: path.to_owned(), source })
    }

    /// Writes it; it must not be there.
    pub(super) fn write(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::PidFile { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).map_err(failed)?;
        let written = Self(path.to_owned());
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(written)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody else may have removed it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Tells systemd (sd_notify(3)) what has become of the process, if it asks to be told.
pub(crate) fn notify_systemd(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| {
        let address = match name.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        socket.send_to_addr(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::warn!("cannot notify systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::process::TempDir;

    #[test]
    fn pid_files_of_the_living_stop_a_start_and_others_are_removed() {
        let dir = TempDir::new(None).unwrap();
        let path = dir.path().join("p.pid");
        assert!(PidFile::check(&path).is_ok(), "there is none");
        for text in ["", "no number", "0", "-1"] {
            fs::write(&path, text).unwrap();
            assert!(matches!(PidFile::check(&path), Err(IdentityError::Running(_))), "{text}");
        }
        fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(matches!(PidFile::check(&path), Err(IdentityError::Running(_))));
        assert!(PidFile::write(&path).is_err(), "never over another");
        // No system has so many processes.
        fs::write(&path, format!("{}\n", i32::MAX)).unwrap();
        PidFile::check(&path).unwrap();
        assert!(!path.exists());
        let written = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(written);
        assert!(!path.exists());
    }
}
