//! Use of a process and its machine, as Linux tells.

use std::fs;
use std::io;
use std::time::Duration;

/// Processor time and memory of a process so far.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time.
    pub cpu: Duration,
    /// Bytes in memory now.
    pub resident: u64,
    /// Bytes in memory now that no file backs.
    pub anonymous: u64,
    /// Bytes in memory at most so far.
    pub most: u64,
}

impl Usage {
    /// The use of the process with that number, on a Linux with its usual hundred ticks a second.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            kib.unwrap_or(0) << 10
        };
        Ok(Self {
            cpu: Duration::from_millis(ticks * 10),
            resident: bytes("VmRSS:"),
            anonymous: bytes("RssAnon:"),
            most: bytes("VmHWM:"),
        })
    }

    /// The memory in words.
    #[must_use]
    pub fn memory(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        format!(
            "memory {:.1} MiB, at most {:.1}",
            mib(self.resident),
            mib(self.most)
        )
    }
}

/// The files and sockets that a process has open.
///
/// # Errors
/// If there is no such process.
pub fn open_files(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Ticks of the machine, and those that others on its host took.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    all: u64,
    stolen: u64,
}

/// The ticks so far.
///
/// # Errors
/// Where the system is not Linux.
pub fn steal() -> io::Result<Ticks> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok(Ticks {
        all: ticks.iter().sum(),
        stolen: ticks.get(7).copied().unwrap_or(0),
    })
}

impl Ticks {
    /// The share that was stolen since.
    #[must_use]
    pub fn since(&self, before: &Self) -> f64 {
        (self.stolen - before.stolen) as f64 / (self.all - before.all).max(1) as f64
    }
}
