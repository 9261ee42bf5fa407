//! Stands in for systemd where a process says what becomes of it: sd_notify(3).

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
};

use super::raw::PATIENCE;

#[derive(Debug)]
pub struct Systemd {
    /// For NOTIFY_SOCKET.
    pub path: PathBuf,
    socket: UnixDatagram,
}

impl Systemd {
    /// Whoever it is may tell it something there.
    pub fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { path: path.to_owned(), socket }
    }

    /// The next message.
    pub fn told(&self) -> String {
        let mut buffer = [0; 200];
        let length = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// No message waits.
    pub fn is_told_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let nothing = self.socket.recv(&mut [0; 200]).is_err();
        self.socket.set_nonblocking(false).unwrap();
        nothing
    }
}
