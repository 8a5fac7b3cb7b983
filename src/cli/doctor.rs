//! `orchestrator doctor`: whether this machine has what builds need, and what to do where it has not.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde::Serialize;

use super::args::DoctorArgs;
use super::{data, exit, text};
use crate::engine::Engine;
use crate::engine::inspect;
use crate::engine::paths::Paths;

/// One thing looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    /// `ok`, `warning` or `problem`.
    state: &'static str,
    detail: String,
}

fn finding(what: &'static str, state: &'static str, detail: impl Into<String>) -> Finding {
    Finding { what, state, detail: detail.into() }
}

/// Looks at everything. Fails if there is a problem; a missing Docker engine is a warning, since pipelines without images
/// run without one.
///
/// # Errors
/// If the answer cannot be printed.
pub async fn run(data: Option<&Path>, args: DoctorArgs) -> anyhow::Result<i32> {
    let mut findings = vec![finding("orchestrator", "ok", env!("CARGO_PKG_VERSION"))];
    let paths = Paths::new(data)?;
    match Engine::open(paths.clone()).await {
        Ok(engine) => {
            findings.push(finding("data folder", "ok", paths.root().display().to_string()));
            findings.extend(docker(&engine).await);
            if args.deep {
                findings.extend(deep(&engine).await?);
            }
        }
        Err(error) => findings.push(finding("data folder", "problem", format!("{}: {error}", paths.root().display()))),
    }
    findings.push(disk(&paths));
    findings.push(tool("git", &["--version"], "lineage names no commits without it"));
    findings.push(tool("ssh", &["-V"], "repositories over ssh cannot be reached"));
    findings.push(shell());
    findings.push(cgroups());
    findings.push(clock());
    let problem = findings.iter().any(|finding| finding.state == "problem");
    if args.json {
        data::print_json(&findings)?;
    } else {
        for finding in &findings {
            let (sign, style) = match finding.state {
                "ok" => ("✓", text::GOOD),
                "warning" => ("!", text::WARN),
                _ => ("✗", text::BAD),
            };
            anstream::println!("{} {:<13} {}", text::paint(style, sign), finding.what, finding.detail);
        }
    }
    Ok(if problem { exit::FAILED } else { exit::PASSED })
}

/// What must hold in the data folder.
async fn deep(engine: &Arc<Engine>) -> anyhow::Result<Vec<Finding>> {
    let findings = inspect::all(engine).await?.into_iter().map(|looked| {
        let state = match (looked.broken.is_empty(), looked.remark) {
            (true, _) => "ok",
            (false, true) => "warning",
            (false, false) => "problem",
        };
        let seen = looked.count.map(|count| format!(" ({count} looked at)")).unwrap_or_default();
        let detail = if looked.broken.is_empty() {
            format!("{}{seen}", looked.what)
        } else {
            format!("{}{seen}, but not: {}", looked.what, text::one_line(&looked.broken.join("; "), 4000))
        };
        finding("deep", state, detail)
    });
    Ok(findings.collect())
}

async fn docker(engine: &Engine) -> Vec<Finding> {
    match engine.runners.docker_about().await {
        Ok(about) => vec![finding(
            "docker",
            "ok",
            format!(
                "engine {}, API {}, {}, storage {}, cgroup {}",
                about.version,
                about.api_version,
                about.os,
                about.storage_driver,
                about.cgroup_version.as_deref().unwrap_or("unknown")
            ),
        )],
        Err(error) => {
            vec![finding("docker", "warning", format!("{error}; pipelines without `image` run all the same"))]
        }
    }
}

fn disk(paths: &Paths) -> Finding {
    let mut folder = paths.root();
    while !folder.exists() {
        match folder.parent() {
            Some(parent) => folder = parent,
            None => break,
        }
    }
    match nix::sys::statvfs::statvfs(folder) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            let state = if free < 1 << 30 { "warning" } else { "ok" };
            finding("disk", state, format!("{} free at {}", text::size(free), folder.display()))
        }
        Err(error) => finding("disk", "problem", format!("cannot look at {}: {error}", folder.display())),
    }
}

fn tool(name: &'static str, arguments: &[&str], without: &str) -> Finding {
    match Command::new(name).args(arguments).output() {
        Ok(output) if output.status.success() => {
            // Some tell their version as if it were an error.
            let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
            finding(name, "ok", text::one_line(String::from_utf8_lossy(said).trim(), 80))
        }
        Ok(output) => finding(name, "warning", format!("ended with {}", output.status)),
        Err(error) => finding(name, "warning", format!("{error}: {without}")),
    }
}

fn shell() -> Finding {
    match Command::new("bash").args(["-c", "true"]).status() {
        Ok(status) if status.success() => finding("shell", "ok", "local steps run by bash -euo pipefail"),
        Ok(_) | Err(_) => {
            finding("shell", "warning", "no bash: local steps run by sh -eu, a failure inside a pipe goes unseen")
        }
    }
}

fn cgroups() -> Finding {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        finding("cgroups", "ok", "v2")
    } else {
        finding("cgroups", "warning", "not v2: the local runner can hold only some limits; containers are not affected")
    }
}

fn clock() -> Finding {
    // Before this program was written: timestamps, certificates and schedules would all be wrong.
    let year = jiff::Zoned::now().year();
    if year < 2025 {
        finding("clock", "problem", format!("the clock says {year}; set it"))
    } else {
        finding("clock", "ok", text::moment(crate::engine::now()))
    }
}
