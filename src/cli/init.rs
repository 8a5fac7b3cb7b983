//! `orchestrator init`: a pipeline to start from, made from what lies in a folder.
//!
//! First the folder is looked at ([`look::Found`]), then the text is composed from that alone. What is composed is checked by the
//! parser before anyone sees it.

mod compose;
mod look;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, bail};

use super::text;
use crate::pipeline;
use compose::compose;
use look::look;

/// Looks at a folder and writes `pipeline.yaml` there, or prints it if `stdout_only`. A file that exists is only written
/// over with `force`. Gives the exit code 0.
///
/// # Errors
/// If the folder cannot be read or written, or the file exists already.
pub fn run(dir: &Path, force: bool, stdout_only: bool) -> anyhow::Result<i32> {
    let found = look(dir)?;
    let composed = compose(&found);
    if let Err(errors) = pipeline::parse("pipeline.yaml", composed.as_bytes()) {
        let rendered = pipeline::render(&errors, &composed, pipeline::Colour::Never);
        bail!("the pipeline made for this folder is not valid, which is our mistake; please report it:\n{rendered}");
    }
    if stdout_only {
        text::print(&composed)?;
        return Ok(0);
    }
    let target = dir.join("pipeline.yaml");
    let mut options = File::options();
    if force {
        options.write(true).create(true).truncate(true);
    } else {
        options.write(true).create_new(true);
    }
    let mut file = match options.open(&target) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("`{}` exists already; `--force` writes over it, `--stdout` only shows the new one", target.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write `{}`", target.display())),
    };
    file.write_all(composed.as_bytes()).with_context(|| format!("cannot write `{}`", target.display()))?;
    text::line(&format!("wrote {}: {}", target.display(), found.summary()));
    text::line(&format!("next: read it, then `orchestrator run {}`", target.display()));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A folder with a name that is not a valid one for a pipeline.
    struct Folder(tempfile::TempDir);

    impl Folder {
        fn path(&self) -> PathBuf {
            self.0.path().join("my Project_")
        }
    }

    fn folder(files: &[(&str, &str)]) -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(folder.path()).expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        folder
    }

    fn made(files: &[(&str, &str)]) -> String {
        let dir = folder(files);
        assert_eq!(run(&dir.path(), false, false).expect("runs"), 0);
        std::fs::read_to_string(dir.path().join("pipeline.yaml")).expect("written")
    }

    const APP: &str =
        "from fastapi import FastAPI\n\napi: FastAPI = FastAPI(title='x')\n\n@api.get(\"/health\")\ndef h(): ...\n";
    const TRAIN: &str = "joblib.dump(m, 'out/model.joblib')\njson.dump(x, open(\"metrics.json\", 'w'))\n";

    #[test]
    fn every_mix_of_files_gives_a_valid_pipeline() {
        let all = [
            ("Dockerfile", "FROM x"),
            ("requirements.txt", "x"),
            ("dvc.yaml", "stages: {}"),
            ("locustfile.py", ""),
            ("train.py", TRAIN),
            ("app.py", APP),
            ("data/players.csv", "a,b: {c,\"d \"\"e\"\"\"\n1,2,x\n3,4,y\n"),
        ];
        for mix in 0..1 << all.len() {
            let files: Vec<(&str, &str)> =
                all.iter().enumerate().filter(|(bit, _)| mix >> bit & 1 == 1).map(|(_, file)| *file).collect();
            let dir = folder(&files);
            let text = compose(&look(&dir.path()).expect("a folder"));
            if let Err(errors) = pipeline::parse("pipeline.yaml", text.as_bytes()) {
                panic!("{files:?}\n{}", pipeline::render(&errors, &text, pipeline::Colour::Never));
            }
        }
    }

    #[test]
    fn a_python_project() {
        insta::assert_snapshot!(made(&[
            ("requirements.txt", ""),
            ("train.py", TRAIN),
            ("app.py", APP),
            ("locustfile.py", "")
        ]));
    }

    #[test]
    fn a_table_alone() {
        insta::assert_snapshot!(made(&[("stats.csv", "Name,Goals,PFA_Team\nA,1,yes\nB,2,no\n")]));
    }

    #[test]
    fn tables_with_odd_names_and_columns_that_name_the_row() {
        let rows: String = (0..20).map(|n| format!("{},c{n},{},{}\n", 1000 + n * 7, n % 5, n % 2)).collect();
        let text = format!("customer_id,name,visits,churned\n{rows}");
        let made = made(&[("a my dätä.CSV", &text), ("zz.csv", &text)]);
        assert!(made.contains("data: \"a my dätä.CSV\"\n"), "{made}");
        assert!(made.contains("# there is also: \"zz.csv\""), "{made}");
        assert!(made.contains("drop: [\"customer_id\", \"name\"]"), "{made}");
        let only = look(&folder(&[("d.tsv", "a\tb\n")]).path()).expect("a folder");
        assert!(only.summary().contains("`d.tsv`") && only.data.is_none(), "{}", only.summary());
    }

    #[test]
    fn an_empty_folder() {
        insta::assert_snapshot!(made(&[]));
    }

    #[test]
    fn a_file_that_exists_is_kept() {
        let dir = folder(&[("pipeline.yaml", "mine")]);
        let error = run(&dir.path(), false, false).expect_err("exists");
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join("pipeline.yaml")).expect("there"), "mine");
        assert_eq!(run(&dir.path(), true, false).expect("runs"), 0);
        assert!(std::fs::read_to_string(dir.path().join("pipeline.yaml")).expect("there").contains("name: my-project"));
        assert!(run(&dir.path().join("none"), false, false).is_err());
    }
}
