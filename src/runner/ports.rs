//! Who listens on a port of this host, from `/proc`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::runner::Listener;

/// The state of a listening socket in `/proc/net/tcp` (see proc_pid_net(5)).
const LISTEN: &str = "0A";

/// A word for the process that listens on the port: its command and number, or only that there is one.
pub fn user_of(port: u16) -> Option<String> {
    let inodes = listening(port);
    if inodes.is_empty() {
        return None;
    }
    Some(process_with(&inodes).unwrap_or_else(another))
}

/// Whether it is these processes, and only these, that listen on the port.
pub fn listener(port: u16, processes: &[i32]) -> Listener {
    let mut inodes = listening(port);
    if inodes.is_empty() {
        return Listener::Nobody;
    }
    for process in processes {
        for socket in sockets(&Path::new("/proc").join(process.to_string())) {
            inodes.remove(&socket);
        }
    }
    // Two may listen on one port (SO_REUSEPORT): then some users would talk to the stranger.
    if inodes.is_empty() { Listener::Unit } else { Listener::Stranger(process_with(&inodes).unwrap_or_else(another)) }
}

fn another() -> String {
    "another user's process".to_owned()
}

/// Inodes of all sockets that listen on the port.
fn listening(port: u16) -> BTreeSet<String> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|text| listeners(&text, port))
        .collect()
}

fn listeners(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            (local.ends_with(&suffix) && *state == LISTEN).then(|| (*inode).to_owned())
        })
        .collect()
}

/// Inodes of the sockets that a process holds.
fn sockets(process: &Path) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return Vec::new() };
    let inode = |file: std::fs::DirEntry| {
        let target = std::fs::read_link(file.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    files.flatten().filter_map(inode).collect()
}

fn process_with(inodes: &BTreeSet<String>) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?;
    let process = processes.flatten().find(|process| sockets(&process.path()).iter().any(|at| inodes.contains(at)))?;
    let pid = process.file_name().to_string_lossy().into_owned();
    Some(format!("`{}` (process {pid})", command(&process.path())))
}

fn command(process: &Path) -> String {
    let name = std::fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim().chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_is_told() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        // Not necessarily us by name: a child that another test starts right now holds the socket, too.
        assert!(user_of(port).is_some_and(|user| user.contains("process")));
        let us = i32::try_from(std::process::id()).unwrap();
        assert_eq!(listener(port, &[us]), Listener::Unit);
        assert!(matches!(listener(port, &[]), Listener::Stranger(_)));
        assert_eq!(listeners("header\n0: 0100007F:0050 00000000:0000 01 0 0 0 0 0 77", 80), Vec::<String>::new());
        drop(socket);
    }
}
