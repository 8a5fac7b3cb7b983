//! The unit's process, as its shim sees it: started, read, signalled, and cleared away with all that descends from it.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::folder::{Launch, WORKSPACE};
use super::process;
use crate::runner::Stream;

/// What the shell answers for a command that is not there.
const NOT_FOUND: i64 = 127;
/// What the shell answers for a command that cannot be run.
const NOT_RUNNABLE: i64 = 126;
/// For a process killed by a real-time signal.
const BY_NAMELESS_SIGNAL: i64 = 255;
/// More in a pipe means fewer system calls under fast output.
const PIPE_BYTES: i32 = 1024 * 1024;
/// How long killed processes may take to go (they may hang in the kernel, on a dead disk).
const PATIENCE: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// 128 + signal if killed by one.
    pub code: i64,
    /// Memory ran out.
    pub out_of_memory: bool,
}

/// Why a command could not be started.
#[derive(Debug)]
pub struct StartFailure {
    /// What a shell would answer.
    pub code: i64,
    /// What is wrong, for the user.
    pub detail: String,
}

impl StartFailure {
    /// Our own or the machine's fault.
    pub fn ours(error: impl Into<io::Error>) -> Self {
        Self { code: NOT_RUNNABLE, detail: format!("cannot start a process: {}", error.into()) }
    }
}

/// A started process.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    code: Option<i64>,
    /// Its standard output, until its end.
    pub stdout: Option<File>,
    /// Its standard error, until its end.
    pub stderr: Option<File>,
}

impl Child {
    /// Starts it in a process group of its own, with nothing of ours but what `launch` says.
    ///
    /// # Errors
    /// [`StartFailure`] if it cannot be.
    pub fn spawn(launch: &Launch) -> Result<Self, StartFailure> {
        let (name, arguments) = launch
            .arguments
            .split_first()
            .ok_or_else(|| StartFailure { code: NOT_FOUND, detail: "there is no command to run".to_owned() })?;
        let workspace = launch.folder.join(WORKSPACE);
        let program = look_up(name, &launch.env, &workspace)?;
        // A path (not a name) lets the standard library take `posix_spawn`, which is quick.
        let mut spawned = Command::new(&program)
            .arg0(name)
            .args(arguments)
            .env_clear()
            .envs(launch.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&workspace)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failure(name, &error))?;
        let pid = i32::try_from(spawned.id()).map_err(|error| StartFailure::ours(io::Error::other(error)))?;
        Ok(Self {
            pid: Pid::from_raw(pid),
            code: None,
            stdout: spawned.stdout.take().map(OwnedFd::from).map(pipe),
            stderr: spawned.stderr.take().map(OwnedFd::from).map(pipe),
        })
    }

    /// Takes leave of all children that have ended; the code of the process itself once it has.
    pub fn reap(&mut self) -> Option<i64> {
        loop {
            match reap_any() {
                Reaped::One(pid, code) if pid == self.pid => self.code = Some(code),
                Reaped::One(..) => {}
                Reaped::Nameless if kill(self.pid, None).is_err() => self.code = Some(BY_NAMELESS_SIGNAL),
                Reaped::Nameless => {}
                Reaped::NoneEnded | Reaped::NoneLeft => return self.code,
            }
        }
    }

    /// Reads one piece; `None` if there is nothing now, or its end was reached.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<usize> {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        loop {
            match pipe.as_mut()?.read(buffer) {
                Ok(0) => *pipe = None,
                Ok(length) => return Some(length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(_) => *pipe = None,
            }
        }
    }

    /// Everything that descends from the shim, the process itself among them.
    pub fn family(&self) -> Vec<i32> {
        process::descendants(Pid::this().as_raw()).unwrap_or_else(|_| vec![self.pid.as_raw()])
    }

    /// SIGTERM for the whole group, or for its leader only where that passes it on by itself (twice would look like
    /// impatience to programs that end at once on a second one).
    pub fn terminate(&self, leader_forwards: bool) {
        let to = if leader_forwards { self.pid.as_raw() } else { -self.pid.as_raw() };
        if self.code.is_none() {
            process::send(to, Signal::SIGTERM);
        }
    }

    /// SIGKILL for the whole group and all that have left it.
    pub fn kill(&self) {
        if self.code.is_none() {
            process::send(-self.pid.as_raw(), Signal::SIGKILL);
        }
        self.family().into_iter().for_each(|pid| process::send(pid, Signal::SIGKILL));
    }

    /// After the end of the process itself: ends all that it has left behind.
    pub fn kill_rest(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match reap_any() {
                Reaped::One(..) | Reaped::Nameless => continue,
                Reaped::NoneLeft => return,
                Reaped::NoneEnded => {}
            }
            if Instant::now() > deadline {
                return;
            }
            self.kill();
            // Death by SIGKILL takes some scheduling; what forked meanwhile is caught in the next round.
            sleep(Duration::from_micros(500));
        }
    }
}

/// Our end of a pipe: read without waiting, so that a process that got hold of the other end cannot hold us up.
fn pipe(end: OwnedFd) -> File {
    // Both only make it better; a small pipe and a wait are no fault.
    let _small = fcntl(&end, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let _waits = fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    File::from(end)
}

enum Reaped {
    One(Pid, i64),
    /// Someone, ended by a real-time signal: the library that asks the kernel has no name for those.
    Nameless,
    NoneEnded,
    NoneLeft,
}

fn reap_any() -> Reaped {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => return Reaped::One(pid, i64::from(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Reaped::One(pid, 128 + i64::from(signal as i32)),
            Ok(WaitStatus::StillAlive) => return Reaped::NoneEnded,
            Err(Errno::EINVAL) => return Reaped::Nameless,
            // Stops are not asked for.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return Reaped::NoneLeft,
        }
    }
}

/// Finds a program by the unit's own `PATH`.
fn look_up(name: &str, env: &[(String, String)], workspace: &Path) -> Result<PathBuf, StartFailure> {
    if name.contains('/') {
        return Ok(workspace.join(name));
    }
    let path = env.iter().rev().find(|(variable, _)| variable == "PATH").map_or("", |(_, value)| value.as_str());
    let is_program =
        |candidate: &PathBuf| candidate.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let folders = path.split(':').map(Path::new).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(is_program).ok_or_else(|| StartFailure {
        code: NOT_FOUND,
        detail: format!("there is no command `{name}` on this machine (looked in {path})"),
    })
}

fn failure(name: &str, error: &io::Error) -> StartFailure {
    let errno = error.raw_os_error().map(Errno::from_raw);
    let (code, why) = match errno {
        Some(Errno::ENOENT) => (NOT_FOUND, "no such file, or its interpreter (the `#!` line) is not there".to_owned()),
        Some(Errno::EACCES) => (NOT_RUNNABLE, "it may not be executed (chmod +x?)".to_owned()),
        Some(Errno::ENOEXEC) => (NOT_RUNNABLE, "it is not a program (a script needs a `#!` line)".to_owned()),
        Some(Errno::E2BIG) => {
            let why =
                "scripts, arguments and variables are too long (Linux takes 128 KiB for one); keep them in a file";
            (NOT_RUNNABLE, why.to_owned())
        }
        _ => (NOT_RUNNABLE, error.to_string()),
    };
    StartFailure { code, detail: format!("cannot run `{name}`: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_units_own_path() {
        let env = |path: &str| vec![("PATH".to_owned(), "/nowhere".to_owned()), ("PATH".to_owned(), path.to_owned())];
        let workspace = Path::new("/work space");
        let found = look_up("sh", &env("/nowhere:/bin:/usr/bin"), workspace).expect("sh");
        assert_eq!(found, Path::new("/bin/sh"));
        assert_eq!(look_up("./run", &env("/bin"), workspace).expect("a path"), Path::new("/work space/./run"));
        for path in ["", ".", "bin", "/nowhere", "/etc"] {
            let failure = look_up("passwd", &env(path), workspace).expect_err(path);
            assert_eq!(failure.code, NOT_FOUND, "{path}");
        }
    }
}
