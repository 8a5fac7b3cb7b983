//! The built-in trainer by the real program on data that nobody would want, and the built-in server by requests that nobody
//! should send: a clear refusal, never a panic, and bounded memory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parquet::data_type::{DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

use crate::harness::{Ended, PROGRAM, Place, ended};

/// A shell that gives the program 768 MiB of address space.
const LIMITED: &str = "ulimit -v 786432; ulimit -c 0; exec \"$@\"";

/// The program under limits.
fn limited(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", LIMITED, "sh", PROGRAM])
        .args(arguments)
        .current_dir(place.project())
        .env("ORCHESTRATOR_DATA_DIR", place.data())
        .env("NO_COLOR", "1")
        // Each thread's own arena would take 64 MiB of address space and use next to none of it.
        .env("MALLOC_ARENA_MAX", "2")
        .env("TOKIO_WORKER_THREADS", "2")
        .stdin(Stdio::null());
    command
}

fn training(task: &str, algorithm: &str) -> String {
    format!(
        "stages:\n  train:\n    train:\n      model: m\n      linfa: {{ data: data.csv, target: y, task: {task}, algorithm: {algorithm} }}\n"
    )
}

/// Trains on these bytes.
#[track_caller]
fn train(pipeline: &str, data: &[u8]) -> (Place, Ended) {
    let place = Place::with(pipeline);
    fs::write(place.project().join("data.csv"), data).unwrap();
    let ended = ended(limited(&place, &["run"]).output().unwrap());
    assert!(!ended.err.contains("panicked") && !ended.out.contains("panicked"), "{}", ended.err);
    (place, ended)
}

/// Expects training to fail for this reason, in these words and no others.
#[track_caller]
fn refused(data: impl AsRef<[u8]>, reason: &str) {
    refused_as(&training("classification", "decision-tree"), data.as_ref(), reason);
}

#[track_caller]
fn refused_as(pipeline: &str, data: &[u8], reason: &str) {
    let (place, ended) = train(pipeline, data);
    assert_eq!(ended.code, 1, "{}", head(&ended.out));
    let stage = place.stage(1, "train");
    assert_eq!(stage["failure"]["message"], reason, "{}", head(&stage.to_string()));
}

#[track_caller]
fn trained(data: impl AsRef<[u8]>) -> Vec<String> {
    let (place, ended) = train(&training("classification", "decision-tree"), data.as_ref());
    assert_eq!(ended.code, 0, "{}", head(&ended.out));
    place.lines(1, "train", "note")
}

fn head(text: &str) -> &str {
    text.get(..2000).unwrap_or(text)
}

/// Forty good rows without their header.
fn rows() -> String {
    (0..40).map(|row| format!("{row},{},{}\n", ["here", "there"][row % 2], u8::from(row >= 20))).collect()
}

fn with(line: &str) -> String {
    format!("a,b,y\n{}{line}\n", rows())
}

#[test]
fn text_in_every_dress() {
    for data in [
        format!("\u{feff}a,b,y\n{}", rows()),
        format!("a,b,y\n{}", rows()).replace('\n', "\r\n"),
        format!("a,b,y\n{}", rows()).replace('\n', "\r"),
        format!("\"a\", \"b\" , y\n\n\n{}\n\n", rows()).replace(" \"b\" ", "b"),
    ] {
        let notes = trained(&data);
        assert!(notes.contains(&"40 rows and 3 columns in `data.csv`".to_owned()), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("with 2 columns")), "{notes:?}");
    }
    let notes = trained(with(&"7,a\0b,1\n".repeat(20)));
    assert!(notes.contains(&"`b` is a category of 3 values".to_owned()), "{notes:?}");
    let notes = trained(with("-nan,NaN,1"));
    assert!(notes.iter().any(|note| note.starts_with("`a`: 1 missing values are taken as the median, ")), "{notes:?}");
}

#[test]
fn tables_that_are_none() {
    refused("", "`data.csv`: it is empty: no header");
    refused("\n\n\n", "`data.csv`: it is empty: no header");
    refused("a,b,y", "`data.csv`: it has no rows");
    refused("a,b,y\n", "`data.csv`: it has no rows");
    refused("a;b;y\n1;2;0\n", "`data.csv`: its values seem to be separated by ';'; they must be separated by commas");
    refused(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12\n",
        "`data.csv`: it is a Git LFS pointer, not the file itself: run `git lfs pull` first",
    );
    refused("<!DOCTYPE html><html></html>\n", "`data.csv`: it is a web page, not a table");
    refused(b"\x1f\x8b\x08\0\0\0\0\0", "`data.csv`: it is compressed with gzip; decompress it first");
    refused(b"PK\x03\x04....", "`data.csv`: it is a zip archive (or an Excel file); save it as CSV or Parquet");
    let wide: Vec<u8> = with("").encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused([&b"\xff\xfe"[..], &wide].concat(), "`data.csv`: it is UTF-16 text; save it as UTF-8");
    refused(b"a,b,y\n1,\xff\xfe,1\n", "`data.csv`, line 2: the text is not UTF-8");
}

#[test]
fn rows_and_headers_that_do_not_fit() {
    refused(with("1,2"), "`data.csv`, line 42: it has 2 values, and the header has 3");
    refused(format!("a,a,y\n{}", rows()), "`data.csv`, line 1: columns 1 and 2 are both called `a`");
    let long = "h".repeat(1 << 20);
    let problem = "the name of column 2 is longer than 1000 bytes; is it a table with a header?";
    refused(format!("a,{long},y\n{}", rows()), &format!("`data.csv`, line 1: {problem}"));
    let names: Vec<String> = (0..10_001).map(|column| format!("c{column}")).collect();
    refused(names.join(","), "`data.csv`: it has 10001 columns; at most 10000 are read");
    let problem =
        "it has 2 values, and the header has 3; the row goes over 42 lines: is a quotation mark in it not closed?";
    refused(with(&format!("1,\"here,1\n{}", rows())), &format!("`data.csv`, line 42: {problem}"));
    // Even where the number of values is right by chance.
    let problem = "it is too long a row; the row goes over 2002 lines: is a quotation mark in it not closed?";
    refused(with(&format!("1,here,\"1\n{}", rows().repeat(50))), &format!("`data.csv`, line 42: {problem}"));
}

#[test]
fn ten_thousand_columns() {
    let mut data = (0..9_999).map(|column| format!("c{column},")).collect::<String>() + "y\n";
    for row in 0..40 {
        data.extend((0..9_999).map(|column| format!("{},", (row * 31 + column * 17) % 101)));
        data += &format!("{}\n", row % 2);
    }
    let notes = trained(data);
    assert!(notes.contains(&"40 rows and 10000 columns in `data.csv`".to_owned()), "{:?}", &notes[..3]);
}

#[test]
fn huge_values() {
    let long = with(&format!("1,\"{}\",1\n{}", "q".repeat(50_000_000), rows()));
    refused(long, "`data.csv`, line 42: the row has more than 16 MiB: is a quotation mark in it not closed?");
    // Long texts are no categories; 200 MB of them would not fit into the memory that there is.
    let text = "w".repeat(100_000);
    let data = (0..2_000).fold("a,b,y\n".to_owned(), |all, row| all + &format!("{row},{text}{row},{}\n", row % 2));
    let notes = trained(data);
    let left_out = "`b` is left out: it has too many different values, or long texts";
    assert!(notes.contains(&left_out.to_owned()), "{notes:?}");
    let many = (0..100_000).fold("a,b,y\n".to_owned(), |all, row| all + &format!("{row},c{row},{}\n", row % 2));
    assert!(trained(&many).contains(&left_out.to_owned()));
    let many = many.replacen("a,b,y", "a,y,b", 1);
    let neither = "the target `y` is neither a class nor a number: it has more than 10000 different texts, or texts of \
                   more than 1000 bytes";
    refused(&many, neither);
    refused_as(&training("regression", "decision-tree"), many.as_bytes(), neither);
}

#[test]
fn numbers_beyond_all_bounds() {
    let most = "which is not a finite number (at most 1.7976931348623157e308)";
    refused(with("inf,here,1"), &format!("`data.csv`, line 42: `a` is `inf`, {most}"));
    refused(with("-Infinity,here,1"), &format!("`data.csv`, line 42: `a` is `-Infinity`, {most}"));
    refused(with("1.8e308,here,1"), &format!("`data.csv`, line 42: `a` is `1.8e308`, {most}"));
    refused(with("1,here,inf"), &format!("`data.csv`, line 42: `y` is `inf`, {most}"));
    // Where it is a category, it is a word like any other.
    assert!(trained(with(&"1,inf,1\n".repeat(20))).contains(&"`b` is a category of 3 values".to_owned()));
    let data =
        (0..40).fold("a,y\n".to_owned(), |all, row| all + &format!("{}1e308,{}\n", ["", "-"][row / 3 % 2], row % 2));
    trained(&data);
    for algorithm in ["logistic", "svm", "knn"] {
        let words = "the numbers of `a` are too large or too close together to be standardized (from -1e308 to 1e308)";
        let words = words.replace("1e308", &format!("{}", 1e308));
        refused_as(&training("classification", algorithm), data.as_bytes(), &words);
    }
    let (place, ended) = train(&training("classification", "naive-bayes"), data.as_bytes());
    assert_eq!(ended.code, 1, "{}", ended.out);
    let message = place.stage(1, "train")["failure"]["message"].to_string();
    assert!(message.contains("look for columns") && message.contains("of very large numbers"), "{message}");
    let swapped = data.replacen("a,y", "y,a", 1);
    for algorithm in ["decision-tree", "random-forest", "linear", "elastic-net", "svm", "knn"] {
        let words = "the target `y` has numbers as large as 1e308, whose squares are beyond all numbers: divide them";
        refused_as(&training("regression", algorithm), swapped.as_bytes(), words);
    }
}

#[test]
fn nothing_to_learn_from() {
    let same = (0..40).fold("a,b,y\n".to_owned(), |all, row| all + &format!("{row},x,1\n"));
    refused(same, "the target `y` is `1` in every row: there is nothing to learn");
    let missing = (0..40).fold("a,b,y\n".to_owned(), |all, row| all + &format!(",{row},{}\n", row % 2));
    refused(missing, "the column `a` has no value in any row; list it under `drop`");
    let no_target = (0..40).fold("a,b,y\n".to_owned(), |all, row| all + &format!("{row},1,\n"));
    refused(no_target, "the target `y` has no value in any row");
    refused("a,b,z\n1,2,3\n", "`data.csv` has no column `y` (the target); did you mean `a`?");
}

/// A Parquet file of twenty rows: a number, what `second` says, and the target.
fn parquet(place: &Place, second: &str) -> Vec<u8> {
    let path = place.outside("made.parquet");
    let schema = format!("message m {{ required double a; {second} required int64 y; }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let numbers: Vec<f64> = (0..20).map(f64::from).collect();
    for _ in 0..2 {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&numbers, None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    let target: Vec<i64> = (0..20).map(|row| i64::from(row >= 10)).collect();
    column.typed::<Int64Type>().write_batch(&target, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    fs::read(&path).unwrap()
}

#[test]
fn parquet_whole_nested_and_broken() {
    let place = Place::new();
    let flat = parquet(&place, "required double b;");
    assert!(trained(&flat).contains(&"20 rows and 3 columns in `data.csv`".to_owned()));
    refused(
        parquet(&place, "required group b { required double x; }"),
        "`data.csv`, line 1: `b` is a list, map, group or binary; only numbers, texts and booleans are read",
    );
    for (damage, bytes) in [
        ("cut off", flat[..flat.len() / 2].to_vec()),
        ("its first bytes alone", b"PAR1".to_vec()),
        ("without its middle", [&flat[..8], &flat[flat.len() - 150..]].concat()),
        ("another's footer", [&flat[..40], &b"\xff".repeat(200)[..], &flat[flat.len() - 8..]].concat()),
    ] {
        let (place, ended) = train(&training("classification", "decision-tree"), &bytes);
        assert_eq!(ended.code, 1, "{damage}: {}", ended.out);
        let message = place.stage(1, "train")["failure"]["message"].to_string();
        assert!(message.contains("`data.csv`: it is not a readable Parquet file: "), "{damage}: {message}");
    }
}

/// A model server in a process of its own, under limits.
struct Server {
    child: Child,
    address: String,
    _place: Place,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(task: &str, algorithm: &str, data: &str) -> Self {
        let place = Place::with(&training(task, algorithm));
        place.write("data.csv", data);
        place.expect(0, &["run"]);
        let model = place.project().join("model");
        place.expect(0, &["artifacts", "get", "1", "train", "-o", model.to_str().unwrap()]);
        let model = model.join("model.json");
        let mut command = limited(&place, &["serve-model", "--model", model.to_str().unwrap(), "--port", "0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap().to_owned();
        Self { child, address, _place: place }
    }

    /// Status, content type and body.
    fn ask(&self, head: &str, body: &[u8]) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(stream, "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n").unwrap();
        // Who refuses early does not read all of it.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_lowercase();
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), kind.to_owned(), body.to_owned())
    }

    /// Expects a problem of this status, and gives it.
    #[track_caller]
    fn problem(&self, status: u16, body: impl AsRef<[u8]>) -> Value {
        let (got, kind, text) = self.ask("POST /predict", body.as_ref());
        assert_eq!((got, kind.as_str()), (status, "application/problem+json"), "{}", self::head(&text));
        let problem: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().len() < 4000, "{}", self::head(&text));
        problem
    }

    fn predict(&self, body: &Value) -> (u16, Value) {
        let (status, _, text) = self.ask("POST /predict", body.to_string().as_bytes());
        (status, serde_json::from_str(&text).unwrap())
    }
}

#[test]
fn hostile_requests_to_the_model_server() {
    let mut server = Server::start("classification", "decision-tree", &format!("a,b,y\n{}", rows()));
    assert_eq!(server.predict(&json!({"a": 30, "b": "here"})).1["prediction"], 1);
    shapes(&server);
    columns(&server);
    sizes(&server);
    // After all of that it is the same process, and it ends as it should.
    assert_eq!(server.predict(&json!({"a": 3, "b": "here"})).1["prediction"], 0);
    assert!(server.child.try_wait().unwrap().is_none());
    let (_, _, metrics) = server.ask("GET /metrics", b"");
    assert!(!metrics.contains("status=\"5"), "{metrics}");
    kill(Pid::from_raw(server.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(server.child.wait().unwrap().success());
}

fn shapes(server: &Server) {
    for body in ["", "{", "NaN", "{\"a\": NaN, \"b\": 1}", "{\"a\": 1e999, \"b\": 1}", "{'a': 1}", "\u{feff}{}"] {
        assert_eq!(server.problem(400, body)["title"], "not JSON", "{body}");
    }
    assert_eq!(server.problem(400, b"\xff\xfe{}")["title"], "not JSON");
    assert_eq!(server.problem(400, "{\"a\": 1, \"b\": \"here\"} {}")["title"], "not JSON");
    assert_eq!(server.problem(400, b"{\"a\": \"\xff\"}")["title"], "not JSON");
    for body in ["7", "\"a\"", "null", "[1]", "[[]]", "[{\"a\": 1, \"b\": 2}, 3]"] {
        assert_eq!(server.problem(422, body)["title"], "not a row", "{body}");
    }
    // JSON is what the body is, whatever its header calls it.
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: text/html\r\nx: POST";
    assert_eq!(server.ask(head, b"{\"a\": 1, \"b\": \"here\"}").0, 200);
    assert_eq!(server.ask("POST /predict", b"a=1&b=here").0, 400);
}

fn columns(server: &Server) {
    let problem = server.problem(422, r#"{"a": "NaN", "c": 1, "a": 2}"#);
    assert_eq!(problem["missing"], json!(["b"]));
    assert_eq!(problem["unknown"], json!(["c"]));
    assert_eq!(problem["duplicate"], json!(["a"]));
    assert_eq!(problem["wrong"], json!([{"column": "a", "expected": "a number or null", "got": "\"NaN\""}]));
    let problem = server.problem(422, r#"[{"a": 1, "b": 2}, {"a": 1, "b": 2, "b": 3}]"#);
    assert_eq!(problem["detail"], "row 1: given more than once: `b`");
    assert_eq!(problem["rows"][0]["duplicate"], json!(["b"]));
    for (value, got) in [(json!([1, 2]), "a list"), (json!({"x": 1}), "an object"), (json!(true), "true")] {
        let problem = server.problem(422, json!({"a": value, "b": "here"}).to_string());
        assert_eq!(problem["wrong"][0]["got"], got);
    }
    let long = "x".repeat(100_000);
    let problem = server.problem(422, json!({"a": long, "b": "here", long.as_str(): 1}).to_string());
    assert_eq!(problem["unknown"][0].as_str().unwrap().len(), 100_000);
}

fn sizes(server: &Server) {
    let good = json!({"a": 1, "b": "here"}).to_string();
    let list = |row: &str, count: usize| format!("[{}]", vec![row; count].join(","));
    assert_eq!(server.ask("POST /predict", list(&good, 10_000).as_bytes()).0, 200);
    assert_eq!(server.problem(413, list(&good, 100_000))["title"], "too many rows");
    let problem = server.problem(422, list("{}", 100_000));
    assert_eq!(problem["rows"].as_array().unwrap().len(), 20);
    assert_eq!(server.problem(413, vec![b' '; 9 << 20])["title"], "too large");
    // Eight million bytes of many small things: twenty rows of them must not fill the memory.
    let names: Vec<String> = (0..700_000).map(|name| format!("\"{name}\":1")).collect();
    let problem = server.problem(422, format!("{{{}}}", names.join(",")));
    assert!(problem["detail"].as_str().unwrap().starts_with("a row has more than 20000 names"), "{problem}");
    let names: Vec<String> = (0..19_000).map(|name| format!("\"{name}\":1")).collect();
    let problem = server.problem(422, list(&format!("{{{}}}", names.join(",")), 30));
    assert!(problem["detail"].as_str().unwrap().contains(" and 18980 more"), "{}", problem["detail"]);
    for (nested, status) in [("[", 422), ("{\"a\":", 400), ("[{\"a\":[", 400), ("{\"a\":{\"b\":[", 400)] {
        server.problem(status, nested.repeat((8 << 20) / nested.len()));
    }
    for item in ["[]", "{}", "1", "\"\""] {
        let body = format!("{{\"b\":1,\"a\":{}}}", list(item, (7 << 20) / (item.len() + 1)));
        assert_eq!(server.problem(422, body)["wrong"][0]["got"], "a list");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 256 << 10, "{most}");
}

/// An answer is a number, or a problem that names the column.
#[test]
fn rows_far_from_all_that_was_learned() {
    let data = (0..40).fold("a,b,y\n".to_owned(), |all, row| all + &format!("{row},{},{row}000\n", row % 3));
    let server = Server::start("regression", "linear", &data);
    assert!(server.predict(&json!({"a": 1e100, "b": 2})).1["prediction"].is_number());
    let problem = server.problem(422, json!({"a": 1.7e308, "b": 2}).to_string());
    assert_eq!(problem["wrong"][0]["column"], "a", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("nearer to what the model was trained on"), "{problem}");
}
