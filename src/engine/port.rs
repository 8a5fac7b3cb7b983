//! Who listens on a port of this host, from `/proc`.

use std::collections::BTreeSet;
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp` (see proc_pid_net(5)).
const LISTEN: &str = "0A";

/// A word for the process that listens on the port: its command and number, or only that there is one.
pub fn user_of(port: u16) -> Option<String> {
    let inodes: BTreeSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .flat_map(|text| listeners(&text, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    Some(process_with(&inodes).unwrap_or_else(|| "another user's process".to_owned()))
}

/// Inodes of the sockets that listen on the port.
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

fn process_with(inodes: &BTreeSet<String>) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?;
    for process in processes.flatten() {
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().any(|file| {
            let target = std::fs::read_link(file.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            target
                .strip_prefix("socket:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|at| inodes.contains(at))
        });
        if holds {
            let pid = process.file_name().to_string_lossy().into_owned();
            return Some(format!("`{}` (process {pid})", command(&process.path())));
        }
    }
    None
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
        assert_eq!(listeners("header\n0: 0100007F:0050 00000000:0000 01 0 0 0 0 0 77", 80), Vec::<String>::new());
    }
}
