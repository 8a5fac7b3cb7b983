//! Which numeric user a container runs as, so that its workspace can belong to it.
//!
//! The engine's API takes numbers only, in the headers of an archive. An image names its user in words or numbers; words
//! are looked up in the image's own `/etc/passwd` and `/etc/group`.

use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::StreamExt;
use std::io::Read;

use super::{DockerRunner, fault};
use crate::runner::RunnerError;
use crate::runner::spec::UnitName;

/// How much of `/etc/passwd` is read, in bytes.
const MOST: u64 = 4 << 20;

/// A user and its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// User.
    pub(super) uid: u64,
    /// Group.
    pub(super) gid: u64,
}

/// The superuser.
pub(super) const ROOT: Owner = Owner { uid: 0, gid: 0 };

/// The user of a container that was made from an image with this `USER`.
pub(super) async fn find(runner: &DockerRunner, unit: &UnitName, user: &str) -> Result<Owner, RunnerError> {
    if is_root(user) {
        return Ok(ROOT);
    }
    let passwd = text(runner, unit, "/etc/passwd").await?;
    let group = if user.contains(':') { text(runner, unit, "/etc/group").await? } else { String::new() };
    resolve(user, &passwd, &group)
        .ok_or_else(|| fault::other(format!("the image's user `{user}` is not in its /etc/passwd or /etc/group")))
}

/// Whether an image's `USER` is the superuser.
pub(super) fn is_root(user: &str) -> bool {
    matches!(user, "" | "root" | "0" | "0:0" | "root:root")
}

/// PURE: `name`, `uid`, `name:group`, `uid:gid` to numbers.
fn resolve(user: &str, passwd: &str, group: &str) -> Option<Owner> {
    let (user, wanted) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let number: Option<u64> = user.parse().ok();
    let line = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        let by_name = fields.first() == Some(&user);
        let by_number = number.is_some() && fields.get(2).and_then(|uid| uid.parse().ok()) == number;
        by_name || by_number
    });
    let field = |at: usize| line.as_ref().and_then(|fields| fields.get(at)).and_then(|text| text.parse::<u64>().ok());
    let uid = field(2).or(number)?;
    let gid = match wanted {
        // As the engine does: a number without an entry has the superuser's group.
        None => field(3).unwrap_or(0),
        Some(name) => name.parse().ok().or_else(|| group_number(name, group))?,
    };
    Some(Owner { uid, gid })
}

fn group_number(name: &str, group: &str) -> Option<u64> {
    let line = group.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// A small text file of a container; empty if there is none.
async fn text(runner: &DockerRunner, unit: &UnitName, path: &str) -> Result<String, RunnerError> {
    let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
    let mut stream = Box::pin(runner.docker.download_from_container(&unit.0, Some(options)));
    let mut archive = Vec::new();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => archive.extend_from_slice(&piece),
            Err(error) if fault::is_absent(&error) => return Ok(String::new()),
            Err(error) => return Err(runner.fault(&format!("read {path} of the image"), &error)),
        }
        if archive.len() as u64 > MOST {
            return Err(fault::other(format!("{path} of the image is larger than {MOST} bytes")));
        }
    }
    let unreadable = |error: std::io::Error| fault::other(format!("cannot read {path} of the image: {error}"));
    let mut archive = tar::Archive::new(archive.as_slice());
    let Some(entry) = archive.entries().map_err(unreadable)?.next() else { return Ok(String::new()) };
    let mut content = Vec::new();
    entry.map_err(unreadable)?.take(MOST).read_to_end(&mut content).map_err(unreadable)?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
        let group = "root:x:0:\nusers:x:100:\n";
        let check = |user: &str, expected: Option<(u64, u64)>| {
            let got = resolve(user, passwd, group).map(|owner| (owner.uid, owner.gid));
            assert_eq!(got, expected, "{user}");
        };
        check("app", Some((1000, 1001)));
        check("1000", Some((1000, 1001)));
        check("app:users", Some((1000, 100)));
        check("1000:7", Some((1000, 7)));
        check("4242", Some((4242, 0)));
        check("nobody", None);
        check("app:nogroup", None);
    }
}
