//! File descriptors: as many as the system allows, some of them kept back for servers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Returns the first descriptor that no client may have: the kernel always
/// gives the lowest free number, so whoever gets a higher one came when nearly all were in use.
pub(super) fn raise_limit(max_client_conn: u32) -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // Where it fails the old limit stays.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let current = if raised.is_ok() { limit.maximum } else { limit.current };
    let current = current.map_or(u32::MAX, |number| u32::try_from(number).unwrap_or(u32::MAX));
    let clients = current - kept_back(current);
    tracing::info!("kernel file descriptor limit: {current}; max_client_conn: {max_client_conn}");
    if clients < max_client_conn {
        tracing::warn!(
            "max_client_conn is {max_client_conn}, but the limit of open files leaves room for about {clients} clients: \
             raise it (LimitNOFILE= in systemd, ulimit -n in a shell)"
        );
    }
    clients
}

/// Clients must not take what it needs to reach servers.
fn kept_back(limit: u32) -> u32 {
    (limit / 10).clamp(8, 2000).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_back_and_never_more_than_there_are() {
        assert_eq!([0, 5, 40, 1024, 1 << 20].map(kept_back), [0, 5, 8, 102, 2000]);
    }
}
