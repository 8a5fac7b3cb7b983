//! A unit's folder: which files it holds, and what they say about the unit.
//!
//! ```text
//! spec.json     labels, port; made by create
//! launch.json   program and variables (secrets, mode 0600); the shim deletes it once it has read it
//! lock          held by the shim as long as it lives: the kernel's word, no process number that could be someone else's
//! control       pipe by which signals reach the shim
//! started       made by the shim with O_EXCL: decides who starts, once
//! exit          how it ended; appears whole (temporary file, fsync, rename)
//! lost          somebody found it lost and has killed what was left
//! output        frames, see `frame`
//! workspace/ home/ tmp/
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::process::{self, Traces};
use crate::ids::Micros;
use crate::runner::{Exit, UnitStatus};

/// `spec.json`.
pub const SPEC: &str = "spec.json";
/// `launch.json`.
pub const LAUNCH: &str = "launch.json";
/// `lock`.
pub const LOCK: &str = "lock";
/// `control`.
pub const CONTROL: &str = "control";
/// `started`.
pub const STARTED: &str = "started";
/// `exit`.
pub const EXIT: &str = "exit";
/// `lost`.
pub const LOST: &str = "lost";
/// `output`.
pub const OUTPUT: &str = "output";
/// What a long-running unit printed before that.
pub const OLDER_OUTPUT: &str = "output.1";
/// `workspace`.
pub const WORKSPACE: &str = "workspace";
/// `home`: the unit's own `$HOME`.
pub const HOME: &str = "home";
/// `tmp`: the unit's own `$TMPDIR`.
pub const TMP: &str = "tmp";

/// `spec.json`: what anyone may know of a unit.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Description {
    /// As given.
    pub labels: BTreeMap<String, String>,
    /// As given.
    pub port: Option<u16>,
    /// The machine's boot in which it was made.
    pub boot: String,
    /// Its cgroup, if it has limits that one can enforce.
    pub cgroup: Option<PathBuf>,
}

/// `launch.json`: what only the shim needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// The unit's folder, absolute.
    pub folder: PathBuf,
    /// Program (looked up in `PATH` of `env`) and arguments.
    pub arguments: Vec<String>,
    /// All variables.
    pub env: Vec<(String, String)>,
    /// Started again whenever it ends. It may run for years, so its output is masked here, and the oldest is dropped.
    pub restart: bool,
    /// Names of variables that hold secrets.
    #[serde(default)]
    pub masked: Vec<String>,
    /// SIGTERM goes to the first process only, which passes it on (the step wrapper).
    pub leader_forwards: bool,
    /// Limits that a cgroup enforces.
    pub cgroup: Option<cgroup::Plan>,
    /// Limit of memory; the shim watches it where no cgroup does.
    pub memory_bytes: Option<u64>,
    /// By how much the starter's time is behind the machine's, in microseconds.
    #[serde(default)]
    pub behind: i64,
}

/// `started`: who the shim is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Started {
    /// Its process number, which is its session's number too.
    pub pid: i32,
    /// When that process was started, in ticks since boot.
    pub ticks: u64,
    /// In which boot of the machine.
    pub boot: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct ExitRecord {
    code: i64,
    out_of_memory: bool,
    at: Micros,
}

/// Whether a file system's error means that there is no such file.
pub fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// A unit's folder, held open, so that it stays the same folder when it is moved away and another takes its name.
#[derive(Debug)]
pub struct Folder {
    handle: File,
    path: PathBuf,
    real: PathBuf,
}

impl Folder {
    /// Opens it; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be opened for another reason.
    pub fn open(real: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        match options.read(true).custom_flags(flags).open(real) {
            Ok(handle) => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
                Ok(Some(Self { handle, path, real: real.to_owned() }))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The path of a file in it, good in this process only.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where it was when it was opened.
    pub fn real(&self) -> &Path {
        &self.real
    }

    /// Whether it has been deleted.
    pub fn is_deleted(&self) -> bool {
        self.handle.metadata().is_ok_and(|m| m.nlink() == 0)
    }

    /// `spec.json`; empty if it is damaged.
    pub fn description(&self) -> Option<Description> {
        read_json(&self.file(SPEC)).ok().flatten()
    }

    /// Whether it has been started.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn is_started(&self) -> io::Result<bool> {
        self.file(STARTED).try_exists()
    }

    /// Who its shim is, if that came so far as to say it.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn started(&self) -> io::Result<Option<Started>> {
        read_json(&self.file(STARTED))
    }

    /// How it ended, if it did and the shim could say so.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        let record: Option<ExitRecord> = read_json(&self.file(EXIT))?;
        Ok(record.map(|r| Exit { code: r.code, out_of_memory: r.out_of_memory, at: r.at }))
    }

    /// Whether a shim lives.
    ///
    /// # Errors
    /// If the lock cannot be looked at.
    pub fn is_locked(&self) -> io::Result<bool> {
        match File::open(self.file(LOCK)) {
            Ok(file) => held(&file),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the shim's place: as long as the answer is held, no shim can start. `None` if one lives.
    ///
    /// # Errors
    /// If the lock cannot be taken for another reason.
    pub fn try_lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.file(LOCK))?;
        Ok(lock(&file)?.then_some(file))
    }

    /// What it is doing. One that is lost is rid of all its processes before this returns.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn status(&self) -> io::Result<UnitStatus> {
        if let Some(exit) = self.exit()? {
            return Ok(UnitStatus::Exited(exit));
        }
        if !self.is_started()? {
            // `started` is not synced to the disk: after the machine went down, nobody knows.
            let same_boot = self.description().is_some_and(|d| d.boot == process::boot_id());
            return Ok(if same_boot { UnitStatus::Created } else { self.gone_or(UnitStatus::Lost) });
        }
        if self.is_locked()? {
            return Ok(UnitStatus::Running);
        }
        // The shim may have written it between the first look and its end.
        if let Some(exit) = self.exit()? {
            return Ok(UnitStatus::Exited(exit));
        }
        self.sweep()?;
        Ok(self.gone_or(UnitStatus::Lost))
    }

    fn gone_or(&self, status: UnitStatus) -> UnitStatus {
        if self.is_deleted() { UnitStatus::Absent } else { status }
    }

    /// Kills what a dead shim has left behind, once.
    ///
    /// # Errors
    /// If something is still alive after it was killed.
    pub fn sweep(&self) -> io::Result<()> {
        if self.file(LOST).try_exists()? {
            return Ok(());
        }
        let started = read_json::<Started>(&self.file(STARTED)).ok().flatten();
        if started.as_ref().is_none_or(|s| s.boot == process::boot_id()) {
            if let Some(cgroup) = self.description().and_then(|d| d.cgroup) {
                cgroup::destroy(&cgroup);
            }
            process::sweep(&Traces { marker: &self.real, shim: started.as_ref() })?;
        }
        match File::create(self.file(LOST)) {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Writes how it ended into the current folder: whole or not at all, and on the disk.
///
/// # Errors
/// If it cannot be written (a full disk): to be tried again.
pub fn write_exit(exit: Exit) -> io::Result<()> {
    const TEMPORARY: &str = "exit.new";
    let record = ExitRecord { code: exit.code, out_of_memory: exit.out_of_memory, at: exit.at };
    let mut file = File::create(TEMPORARY)?;
    file.write_all(&serde_json::to_vec(&record)?)?;
    file.sync_all()?;
    fs::rename(TEMPORARY, EXIT)
}

/// Writes a record readable by its owner only.
///
/// # Errors
/// If it cannot be written.
pub fn write_json(path: &Path, record: &impl Serialize) -> io::Result<()> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(record)?)
}

/// Reads a record; `None` if there is no such file.
///
/// # Errors
/// If it cannot be read, or is no such record.
pub fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The whole file, for writing.
fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the lock for as long as the file is open; `false` if someone has it.
///
/// It belongs to the open file, not to the process, and can be looked at without being taken (unlike `flock`), so that
/// looking never keeps a shim from starting.
///
/// # Errors
/// If the file system knows no locks.
pub fn lock(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn held(file: &File) -> io::Result<bool> {
    let mut wanted = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted))?;
    Ok(i32::from(wanted.l_type) != libc::F_UNLCK)
}
