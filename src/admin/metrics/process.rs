//! What the kernel knows of the process.

use std::fs;

/// Ticks of a second in `/proc`, whatever the kernel's own are.
const TICKS: u64 = 100;
const MICROS: u64 = 1_000_000;

/// What could be read; where there is no `/proc`, nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::admin) struct Usage {
    /// Of all processors, in microseconds.
    pub(in crate::admin) cpu_time: Option<u64>,
    pub(in crate::admin) resident_bytes: Option<u64>,
    pub(in crate::admin) open_files: Option<u64>,
    pub(in crate::admin) most_files: Option<u64>,
}

impl Usage {
    /// As it is now. Reads files that are no files: it waits for nothing.
    pub(in crate::admin) fn now() -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
        Self {
            cpu_time: cpu_time(&read("stat")),
            resident_bytes: resident_bytes(&read("status")),
            open_files: fs::read_dir("/proc/self/fd").ok().and_then(|files| files.count().try_into().ok()),
            most_files: most_files(&read("limits")),
        }
    }
}

/// Of `/proc/self/stat`, whose second field may hold anything but has the last `)`.
fn cpu_time(stat: &str) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    Some(ticks * (MICROS / TICKS))
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn most_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        let stat = "1 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0";
        assert_eq!(cpu_time(stat), Some(3 * MICROS));
        assert_eq!(cpu_time("nonsense"), None);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12 << 10));
        assert_eq!(most_files("Limit  Soft\nMax open files            1024      4096   files\n"), Some(1024));
        assert_eq!(most_files("Max open files            unlimited unlimited files\n"), None);
        let now = Usage::now();
        assert!(now.cpu_time.is_some() && now.resident_bytes > Some(1 << 20) && now.open_files > Some(0));
    }
}
