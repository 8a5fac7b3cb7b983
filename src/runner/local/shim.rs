//! The shim: a small process of this program that stands between a unit and whoever started it, and outlives the latter.
//!
//! ```text
//! runner --spawns--> shim --spawns--> unit's process (own group) --> ...
//!                     |  reads its two pipes, appends frames to `output`
//!                     |  obeys `control` (T: SIGTERM, K: SIGKILL)
//!                     '- writes `exit` once nothing of the unit is left
//! ```
//!
//! One thread, no runtime, a buffer of 128 KiB. It is the reaper of all that descends from it, so a unit's process can leave
//! the session, but not the unit. There is deliberately no parent-death signal on the unit's process: it would reach that one
//! process only, while those who matter (the steps) are further down. When a shim is killed, whoever looks next
//! ([`super::folder::Folder::status`], or at once the runner that reads the output) kills what is left.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdout, setsid};

use super::cgroup;
use super::child::{Child, Ended, StartFailure};
use super::folder::{self, Launch, Started};
use super::frame::{HEADER, Header, MAX_PAYLOAD};
use super::process;
use crate::ids::Micros;
use crate::logs::mask::{Mask, MaskStream};
use crate::runner::{Exit, Stream};

/// Answers on standard output, so that the runner knows what became of the start: a word, then a detail.
pub const ANSWER_OK: &str = "ok";
/// Someone was first.
pub const ANSWER_ALREADY: &str = "already";
/// The command cannot be run; this has been settled as its exit.
pub const ANSWER_START: &str = "start";
/// The shim itself cannot work.
pub const ANSWER_ERROR: &str = "error";

/// The byte in `control` for SIGTERM.
pub const CONTROL_TERM: u8 = b'T';
/// The byte in `control` for SIGKILL.
pub const CONTROL_KILL: u8 = b'K';

/// Longest output file of a unit that may run for years; one older of that length is kept beside it.
const OUTPUT_CAP: u64 = 16 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often memory is looked at where no cgroup limits it.
const MEMORY_PERIOD: Duration = Duration::from_millis(100);
/// How often a write to a full disk is tried again.
const DISK_PERIOD: Duration = Duration::from_millis(200);

/// Runs the shim of the unit in this folder to its end; returns the exit code for the process. To be called first thing in
/// `main`, with one thread.
pub fn main(folder: &Path) -> i32 {
    match prepare(folder) {
        Ok(Some(shim)) => shim.run(),
        Ok(None) => {
            answer(ANSWER_ALREADY, "");
            0
        }
        Err(error) => {
            answer(ANSWER_ERROR, &format!("the shim of `{}` cannot work: {error}", folder.display()));
            1
        }
    }
}

/// Tells the runner and lets go of its pipe. It may have been killed meanwhile, which is nobody's concern.
fn answer(word: &str, detail: &str) {
    let _nobody_listens = writeln!(io::stdout(), "{word} {detail}").and_then(|()| io::stdout().flush());
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _stays_open = dup2_stdout(&null);
    }
}

/// Claims the unit; `None` if it has been started before.
fn prepare(folder: &Path) -> io::Result<Option<Shim>> {
    // From here on all paths are relative, so that this is the same folder even if it is moved away.
    env::set_current_dir(folder)?;
    // Fails only if it is a session's leader already.
    let _leader = setsid();
    SigSet::empty().thread_set_mask()?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    let Some(lock) = claim()? else { return Ok(None) };
    let launch: Launch = folder::read_json(Path::new(folder::LAUNCH))?
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "launch.json is not there"))?;
    fs::remove_file(folder::LAUNCH)?;
    crate::clock::live_behind(launch.behind);
    set_child_subreaper(true)?;
    let control = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(folder::CONTROL)?;
    let file = OpenOptions::new().append(true).open(folder::OUTPUT)?;
    let output = Output { written: file.metadata()?.len(), file, given_up: false, capped: launch.restart };
    let masks = launch.restart.then(|| masks(&launch));
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let buffer = vec![0; HEADER + MAX_PAYLOAD].into_boxed_slice();
    Ok(Some(Shim { launch, _lock: lock, control, output, signals, children, buffer, masks, orders: Orders::default() }))
}

/// Takes the lock and makes `started`: of many shims, one gets past this, ever.
fn claim() -> io::Result<Option<File>> {
    let lock = OpenOptions::new().write(true).open(folder::LOCK)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !folder::lock(&lock)? {
        if Path::new(folder::STARTED).try_exists()? {
            return Ok(None);
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(ErrorKind::TimedOut, "somebody else holds its lock"));
        }
        sleep(Duration::from_micros(200));
    }
    let mut started = match OpenOptions::new().create_new(true).write(true).open(folder::STARTED) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Some(own) = process::find("self") {
        let record = Started { pid: own.pid, ticks: own.ticks, boot: process::boot_id() };
        // On a full disk the unit runs all the same; its processes are known by their variable too.
        let _full = started.write_all(&serde_json::to_vec(&record)?);
    }
    Ok(Some(lock))
}

/// What has been asked for through `control`.
#[derive(Debug, Default)]
struct Orders {
    /// Not to be started again.
    stop: bool,
    /// To be killed.
    kill: bool,
}

struct Shim {
    launch: Launch,
    _lock: File,
    control: File,
    output: Output,
    signals: SignalFd,
    children: SigSet,
    buffer: Box<[u8]>,
    /// For a unit that may run for years: of standard output and standard error.
    masks: Option<[MaskStream; 2]>,
    orders: Orders,
}

impl Shim {
    fn run(mut self) -> i32 {
        let cgroup = self.limits();
        if cgroup.is_some() && self.launch.cgroup.as_ref().is_some_and(cgroup::Plan::limits_memory) {
            // The kernel watches it.
            self.launch.memory_bytes = None;
        }
        let mut pause = FIRST_PAUSE;
        let mut answered = false;
        let exit = loop {
            let begun = Instant::now();
            let ended = match self.spawn(cgroup.as_ref()) {
                Ok(child) => {
                    if !answered {
                        answer(ANSWER_OK, "");
                    }
                    self.attend(child)
                }
                Err(failure) => {
                    self.say(&failure.detail);
                    if !answered {
                        self.settle(Ended { code: failure.code, out_of_memory: false });
                        answer(ANSWER_START, &failure.detail);
                        return 0;
                    }
                    Ended { code: failure.code, out_of_memory: false }
                }
            };
            answered = true;
            let out_of_memory = ended.out_of_memory || cgroup.as_ref().is_some_and(cgroup::Cgroup::out_of_memory);
            let ended = Ended { out_of_memory: out_of_memory && ended.code != 0, ..ended };
            if !self.launch.restart || self.orders.stop {
                break ended;
            }
            pause = if begun.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { pause };
            self.say(&format!("ended with exit code {}; starting again in {} ms", ended.code, pause.as_millis()));
            self.rest(pause);
            if self.orders.stop {
                break ended;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        };
        self.settle(exit);
        0
    }

    /// The cgroup, if there is to be one. Without it memory is watched instead: a limit is never silently dropped.
    fn limits(&mut self) -> Option<cgroup::Cgroup> {
        let plan = self.launch.cgroup.as_ref()?;
        match cgroup::Cgroup::make(plan) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                let text =
                    format!("limits cannot be enforced: cannot make cgroup `{}`: {error}", plan.folder.display());
                self.say(&text);
                None
            }
        }
    }

    fn spawn(&mut self, cgroup: Option<&cgroup::Cgroup>) -> Result<Child, StartFailure> {
        // A blocked SIGCHLD would be inherited by the unit.
        self.children.thread_unblock().map_err(StartFailure::ours)?;
        let launch = &self.launch;
        let spawned = match cgroup {
            None => Child::spawn(launch),
            Some(cgroup) => cgroup.inside(|| Child::spawn(launch)).map_err(StartFailure::ours)?,
        };
        self.children.thread_block().map_err(StartFailure::ours)?;
        spawned
    }

    /// Stays with the process until it has ended, nothing of it is left, and all its output is written.
    fn attend(&mut self, mut child: Child) -> Ended {
        let mut out_of_memory = false;
        let mut next_look = Instant::now() + MEMORY_PERIOD;
        // The child may have ended before SIGCHLD was blocked, so the first look comes before the first wait.
        while child.reap().is_none() {
            let watched = self.launch.memory_bytes;
            let timeout = watched.map(|_| next_look.saturating_duration_since(Instant::now()));
            let ready = self.wait(&child, timeout);
            if ready.control {
                self.obey(Some(&child));
            }
            if ready.signals {
                while let Ok(Some(_)) = self.signals.read_signal() {}
            }
            for (stream, ready) in [(Stream::Stdout, ready.stdout), (Stream::Stderr, ready.stderr)] {
                if ready {
                    self.copy(&mut child, stream);
                }
            }
            if let Some(limit) = watched.filter(|_| Instant::now() >= next_look) {
                if !out_of_memory && process::memory_bytes(&child.family(), limit) > limit {
                    out_of_memory = true;
                    child.kill();
                }
                next_look = Instant::now() + MEMORY_PERIOD;
            }
        }
        child.kill_rest();
        for stream in [Stream::Stdout, Stream::Stderr] {
            while self.copy(&mut child, stream) {}
        }
        self.flush_masks();
        let code = child.reap().unwrap_or_default();
        Ended { code, out_of_memory }
    }

    fn wait(&self, child: &Child, timeout: Option<Duration>) -> Ready {
        let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        let pipes = [child.stdout.as_ref(), child.stderr.as_ref()];
        let mut fds = vec![poll_in(&self.control), poll_in(&self.signals)];
        fds.extend(pipes.iter().flatten().map(|pipe| poll_in(*pipe)));
        if poll(&mut fds, timeout).is_err() {
            return Ready::default();
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(true));
        let mut next = || ready.next().unwrap_or(false);
        Ready {
            control: next(),
            signals: next(),
            stdout: pipes[0].is_some() && next(),
            stderr: pipes[1].is_some() && next(),
        }
    }

    /// Copies one piece of a stream into the file; `false` if there is nothing (now or ever).
    fn copy(&mut self, child: &mut Child, stream: Stream) -> bool {
        let (head, body) = self.buffer.split_at_mut(HEADER);
        let Some(length) = child.read(stream, body) else { return false };
        if self.masks.is_some() {
            self.copy_masked(child, stream, length);
            return true;
        }
        head.copy_from_slice(&Header { stream, at: now(), length }.encode());
        let mut from = 0;
        while let Some(rest) = self.output.append(&self.buffer[from..HEADER + length]) {
            from = HEADER + length - rest;
            self.wait_for_disk(Some(child));
        }
        true
    }

    /// As [`Shim::copy`], with secrets hidden.
    fn copy_masked(&mut self, child: &Child, stream: Stream, length: usize) {
        let mut masked = Vec::with_capacity(length);
        if let Some(mask) = self.masks.as_mut().map(|masks| &mut masks[usize::from(stream == Stream::Stderr)]) {
            mask.push(&self.buffer[HEADER..HEADER + length], &mut |bytes| masked.extend_from_slice(bytes));
        }
        self.write(Some(child), stream, &masked);
    }

    /// The process has ended: what was held back as the possible begin of a secret is none.
    fn flush_masks(&mut self) {
        for (index, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            let mut rest = Vec::new();
            if let Some(masks) = &mut self.masks {
                masks[index].finish(&mut |bytes| rest.extend_from_slice(bytes));
            }
            self.write(None, stream, &rest);
        }
    }

    fn write(&mut self, child: Option<&Child>, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(MAX_PAYLOAD) {
            let frame = [&Header { stream, at: now(), length: piece.len() }.encode()[..], piece].concat();
            self.output.make_room(frame.len());
            let mut from = 0;
            while let Some(rest) = self.output.append(&frame[from..]) {
                from = frame.len() - rest;
                self.wait_for_disk(child);
            }
        }
    }

    /// Writes a line of our own into the unit's standard error.
    fn say(&mut self, text: &str) {
        let line = format!("orchestrator: {text}\n");
        let line = &line.as_bytes()[..line.len().min(MAX_PAYLOAD)];
        self.write(None, Stream::Stderr, line);
    }

    /// Writes how it ended. As long as the disk is full this waits, and the unit counts as running.
    fn settle(&mut self, ended: Ended) {
        let exit = Exit { code: ended.code, out_of_memory: ended.out_of_memory, at: now() };
        while !self.output.is_gone() && folder::write_exit(exit).is_err() {
            self.wait_for_disk(None);
        }
        if let Some(plan) = &self.launch.cgroup {
            cgroup::destroy(&plan.folder);
        }
    }

    /// A full disk is waited out; meanwhile the pipes fill and the unit stands still, but it can be killed.
    fn wait_for_disk(&mut self, child: Option<&Child>) {
        let mut fds = [poll_in(&self.control)];
        let timeout = PollTimeout::try_from(DISK_PERIOD).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).is_ok_and(|ready| ready > 0) {
            self.obey(child);
        }
    }

    /// A pause between two starts, which an order ends.
    fn rest(&mut self, pause: Duration) {
        let mut fds = [poll_in(&self.control)];
        if poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)).is_ok_and(|ready| ready > 0) {
            self.obey(None);
        }
    }

    fn obey(&mut self, child: Option<&Child>) {
        let mut orders = [0; 64];
        let Ok(length) = nix::unistd::read(&self.control, &mut orders) else { return };
        self.orders.stop |= length > 0;
        self.orders.kill |= orders[..length].contains(&CONTROL_KILL);
        let Some(child) = child else { return };
        if self.orders.kill {
            child.kill();
        } else if orders[..length].contains(&CONTROL_TERM) {
            child.terminate(self.launch.leader_forwards);
        }
    }
}

#[derive(Debug, Default)]
struct Ready {
    control: bool,
    signals: bool,
    stdout: bool,
    stderr: bool,
}

fn poll_in(fd: &impl AsFd) -> PollFd<'_> {
    PollFd::new(fd.as_fd(), PollFlags::POLLIN)
}

fn now() -> Micros {
    crate::clock::now()
}

/// The output file.
struct Output {
    file: File,
    given_up: bool,
    written: u64,
    /// The oldest is dropped above [`OUTPUT_CAP`].
    capped: bool,
}

/// Masks of both streams for a unit that may run for years.
fn masks(launch: &Launch) -> [MaskStream; 2] {
    let secrets = launch.env.iter().filter(|(name, _)| launch.masked.contains(name));
    let (mask, _) = Mask::new(secrets.map(|(name, value)| (name.as_str(), value.as_str())));
    [mask.stream(), mask.stream()]
}

impl Output {
    /// Appends; returns how many bytes are left if the disk is full. Once the file has been deleted (the unit was removed)
    /// bytes go nowhere.
    fn append(&mut self, mut bytes: &[u8]) -> Option<usize> {
        while !bytes.is_empty() && !self.given_up {
            match self.file.write(bytes) {
                Ok(length) => {
                    self.written += length as u64;
                    bytes = &bytes[length..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if self.is_gone() => self.given_up = true,
                Err(_) => return Some(bytes.len()),
            }
        }
        None
    }

    /// Before a frame: begins a new file where this one would get too long, and keeps one older. Where that cannot be done now,
    /// the old file goes on.
    fn make_room(&mut self, more: usize) {
        if !self.capped || self.written + more as u64 <= OUTPUT_CAP || self.is_gone() {
            return;
        }
        let new = || {
            fs::rename(folder::OUTPUT, folder::OLDER_OUTPUT)?;
            OpenOptions::new().create(true).append(true).open(folder::OUTPUT)
        };
        if let Ok(file) = new() {
            self.file = file;
            self.written = 0;
        }
    }

    fn is_gone(&self) -> bool {
        self.file.metadata().is_ok_and(|m| m.nlink() == 0)
    }
}
