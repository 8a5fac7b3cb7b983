//! Limits by cgroup version 2, where this process may make cgroups beside its own.
//!
//! That is so for a systemd service with `Delegate=yes` and `DelegateSubgroup=main`, in most desktop sessions, and for
//! root. Where it is not, the shim watches memory itself and the other limits are named as not enforced.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::pipeline::types::Resources;

/// Where units' cgroups can be made, and which limits work there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
    /// `memory` works.
    pub memory: bool,
    /// `pids` works.
    pub pids: bool,
    /// `cpu` works.
    pub cpu: bool,
}

/// A unit's cgroup: its folder, and what is written into which of its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The cgroup's folder.
    pub folder: PathBuf,
    files: Vec<(String, String)>,
}

impl Plan {
    /// Whether it limits memory.
    pub fn limits_memory(&self) -> bool {
        self.files.iter().any(|(file, _)| file == "memory.max")
    }
}

impl Place {
    /// Looks for one.
    pub fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::open(&beside(&mounts, &own)?)
    }

    fn open(folder: &Path) -> Option<Self> {
        let control = folder.join("cgroup.subtree_control");
        for controller in ["memory", "pids", "cpu"] {
            // Each by itself, since one that is not there would refuse them all; what has worked is read back below.
            let _may_be_refused = put(&control, &format!("+{controller}"));
        }
        let enabled = fs::read_to_string(&control).ok()?;
        let has = |name: &str| enabled.split_ascii_whitespace().any(|word| word == name);
        let place = Self { folder: folder.to_owned(), memory: has("memory"), pids: has("pids"), cpu: has("cpu") };
        if !(place.memory || place.pids || place.cpu) {
            return None;
        }
        let probe = folder.join(format!("orchestrator-probe-{}", std::process::id()));
        fs::create_dir(&probe).ok()?;
        fs::remove_dir(&probe).ok()?;
        Some(place)
    }

    /// The cgroup for these limits; `None` if none of them can be enforced here.
    pub fn plan(&self, name: &str, resources: &Resources) -> Option<Plan> {
        let mut files = Vec::new();
        if let Some(bytes) = resources.memory_bytes.filter(|_| self.memory) {
            files.push(("memory.max".to_owned(), bytes.to_string()));
            files.push(("memory.swap.max".to_owned(), "0".to_owned()));
        }
        if let Some(pids) = resources.pids.filter(|_| self.pids) {
            files.push(("pids.max".to_owned(), pids.to_string()));
        }
        if let Some(cpus) = resources.cpus.filter(|_| self.cpu) {
            files.push(("cpu.max".to_owned(), format!("{:.0} 100000", (cpus * 100_000.0).max(1_000.0))));
        }
        (!files.is_empty()).then(|| Plan { folder: self.folder.join(name), files })
    }
}

/// The cgroup beside which units' ones go: the parent of our own. Our own holds processes, and the kernel wants
/// processes in leaves only.
fn beside(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        (words.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(words[1]))
    })?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
    Some(mount.join(Path::new(path).parent().unwrap_or(Path::new(""))))
}

/// A made cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    home: Option<PathBuf>,
}

impl Cgroup {
    /// Makes it and sets its limits.
    ///
    /// # Errors
    /// If it cannot be made, or a limit is refused.
    pub fn make(plan: &Plan) -> io::Result<Self> {
        match fs::create_dir(&plan.folder) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        for (file, value) in &plan.files {
            match put(&plan.folder.join(file), value) {
                // Kernels without swap accounting have no such file.
                Err(error) if file == "memory.swap.max" && error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let name = own.lines().find_map(|line| line.strip_prefix("0::")).and_then(|path| Path::new(path).file_name());
        let home = beside(&mounts, &own).map(|parent| name.map_or(parent.clone(), |name| parent.join(name)));
        Ok(Self { folder: plan.folder.clone(), home })
    }

    /// Runs `spawn` inside the cgroup, so that what it starts is in it from its first instruction on; this process itself
    /// leaves again, lest it be killed when the memory runs out.
    ///
    /// # Errors
    /// If the cgroup cannot be entered; `spawn` has not been called then.
    pub fn inside<T>(&self, spawn: impl FnOnce() -> T) -> io::Result<T> {
        put(&self.folder.join("cgroup.procs"), "0")?;
        let spawned = spawn();
        let left = self.home.as_ref().is_some_and(|home| put(&home.join("cgroup.procs"), "0").is_ok());
        if left {
            // All of the unit ends together. Absent where memory is not limited.
            let _absent = put(&self.folder.join("memory.oom.group"), "1");
        }
        Ok(spawned)
    }

    /// Whether the kernel has killed something in it for want of memory.
    pub fn out_of_memory(&self) -> bool {
        let events = fs::read_to_string(self.folder.join("memory.events")).unwrap_or_default();
        oom_kills(&events) > 0
    }
}

/// Writes into one of the kernel's files; it is never made.
fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

fn oom_kills(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

/// Kills all that is in a cgroup and removes it, as far as that works. No error if there is none.
pub fn destroy(folder: &Path) {
    for _ in 0..50 {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {}
            Ok(()) | Err(_) => return,
        }
        let _older_kernel = put(&folder.join("cgroup.kill"), "1");
        sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_beside_our_own_cgroup() {
        let mounts = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let check =
            |own: &str, expected: Option<&str>| assert_eq!(beside(mounts, own), expected.map(PathBuf::from), "{own}");
        check("0::/system.slice/x.service/main\n", Some("/sys/fs/cgroup/system.slice/x.service"));
        check("9:memory:/a\n0::/\n", Some("/sys/fs/cgroup/"));
        check("9:memory:/a\n", None);
        assert_eq!(beside("proc /proc proc rw 0 0\n", "0::/\n"), None);
    }

    #[test]
    fn only_limits_that_work_are_planned() {
        let place = Place { folder: "/cg".into(), memory: true, pids: false, cpu: true };
        let limits = Resources { cpus: Some(1.5), memory_bytes: Some(1024), pids: Some(7), gpus: None };
        let plan = place.plan("unit", &limits).expect("two limits work");
        let files: Vec<String> = plan.files.iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(files, ["memory.max=1024", "memory.swap.max=0", "cpu.max=150000 100000"]);
        assert_eq!(place.plan("unit", &Resources { pids: Some(7), ..Resources::default() }), None);
    }

    #[test]
    fn a_place_without_controllers_is_none() {
        let folder = tempfile::tempdir().expect("folder");
        assert_eq!(Place::open(folder.path()), None);
        let control = folder.path().join("cgroup.subtree_control");
        fs::write(&control, "").expect("file");
        assert_eq!(Place::open(folder.path()), None);
    }

    #[test]
    fn oom_kills_are_counted() {
        assert_eq!(oom_kills("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills(""), 0);
    }
}
