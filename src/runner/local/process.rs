//! Processes as the kernel shows them under `/proc`: who descends from whom, and what a dead shim left behind.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::folder::Started;

/// The variable by which a unit's processes are known, whatever session they have moved to: its folder.
pub const MARKER: &str = "ORCHESTRATOR_UNIT";

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// Its session's.
    pub session: i32,
    /// When it was started, in ticks since boot: with `pid` unique in a boot.
    pub ticks: u64,
    /// It has ended, and its parent has not asked how.
    pub ended: bool,
}

/// Identifies this boot of the machine; empty where the kernel does not say.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// One process; `None` if there is none of that number.
pub fn find(pid: &str) -> Option<Process> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`. The command's name in it may hold blanks and brackets, so fields count from the last bracket.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (front, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    Some(Process {
        pid: front.split_once(' ')?.0.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        ticks: fields.get(19)?.parse().ok()?,
    })
}

/// All processes that can be seen.
fn all() -> io::Result<Vec<Process>> {
    let names = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).filter_map(|pid| find(&pid)).collect())
}

/// All that descend from a process, those that have ended but for the asking left out.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn descendants(of: i32) -> io::Result<Vec<i32>> {
    let all = all()?;
    let mut found = vec![of];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(all.iter().filter(|p| p.parent == parent && p.pid != of).map(|p| p.pid));
        at += 1;
    }
    found.retain(|&pid| pid != of && all.iter().any(|p| p.pid == pid && !p.ended));
    Ok(found)
}

/// Sends a signal to one process (a group if negative). One that has ended is no error.
pub fn send(pid: i32, signal: Signal) {
    // The only other error is a process of another user (a setuid program), where nothing can be done.
    let _gone_or_not_ours = kill(Pid::from_raw(pid), signal);
}

/// How the processes of a dead shim are told from all others.
#[derive(Debug, Clone, Copy)]
pub struct Traces<'a> {
    /// The value of [`MARKER`].
    pub marker: &'a Path,
    /// The shim, if it came so far as to say who it is.
    pub shim: Option<&'a Started>,
}

/// Kills all processes with these traces and waits until they are gone.
///
/// # Errors
/// If some will not die, or `/proc` cannot be read.
pub fn sweep(traces: &Traces<'_>) -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_millis(2);
    for _ in 0..2_500 {
        let all = all()?;
        let left: Vec<i32> = all.iter().filter(|p| !p.ended && traces.lead_to(p, &all)).map(|p| p.pid).collect();
        if left.is_empty() {
            return Ok(());
        }
        left.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        sleep(PATIENCE);
    }
    Err(io::Error::other("processes of the unit do not die although they were killed (waiting for a disk?)"))
}

impl Traces<'_> {
    fn lead_to(&self, process: &Process, all: &[Process]) -> bool {
        if let Some(shim) = self.shim {
            // A number is not given out again while a session has it; a living leader other than ours means that the
            // session is somebody else's.
            let ours = process.session == shim.pid && process.ticks >= shim.ticks;
            if ours && !all.iter().any(|p| p.pid == shim.pid && p.ticks != shim.ticks) {
                return true;
            }
        }
        let environ = fs::read(format!("/proc/{}/environ", process.pid)).unwrap_or_default();
        let marker = [MARKER.as_bytes(), b"=", self.marker.as_os_str().as_bytes()].concat();
        environ.split(|&byte| byte == 0).any(|variable| variable == marker)
    }
}

/// Memory in bytes that belongs to these processes alone: a first look that counts pages shared between them twice, and
/// only if that is over `limit` the exact one.
pub fn memory_bytes(pids: &[i32], limit: u64) -> u64 {
    let rough = pids.iter().filter_map(|&pid| resident(pid)).sum();
    if rough <= limit {
        rough
    } else {
        pids.iter().filter_map(|&pid| proportional(pid).or_else(|| resident(pid))).sum()
    }
}

fn resident(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(kibibytes(&status, "RssAnon:")? + kibibytes(&status, "RssShmem:").unwrap_or(0))
}

fn proportional(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kibibytes(&rollup, "Pss_Anon:")? + kibibytes(&rollup, "Pss_Shmem:").unwrap_or(0))
}

/// The value of a line such as `RssAnon: 1024 kB`, in bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(value.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let line = b"42 (a) b ( c) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 1 2 3\n";
        let expected = Process { pid: 42, parent: 7, session: 41, ticks: 987, ended: false };
        assert_eq!(parse_stat(line), Some(expected));
        for bad in [&b""[..], b"1", b"1 (x", b"1 (x) S 1", b"x (x) S 1 2 3"] {
            assert_eq!(parse_stat(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn own_children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
        let pid = i32::try_from(child.id()).expect("a process number");
        let own = i32::try_from(std::process::id()).expect("a process number");
        assert!(descendants(own).expect("proc").contains(&pid));
        assert!(memory_bytes(&[own], u64::MAX) > 0);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert!(!descendants(own).expect("proc").contains(&pid));
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(kibibytes("VmRSS:\t 5 kB\nRssAnon:\t  12 kB\n", "RssAnon:"), Some(12 * 1024));
        assert_eq!(kibibytes("VmRSS:\t 5 kB\n", "RssAnon:"), None);
    }
}
