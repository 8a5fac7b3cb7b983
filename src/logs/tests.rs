//! Writing, cutting off, resuming and reading together.

use std::fs::{self, OpenOptions};
use std::path::Path;

use proptest::prelude::*;

use super::format::parse;
use super::*;
use crate::ids::Micros;

const NONCE: &str = "0123456789abcdef";

/// The stream, its records (without time): what must not depend on chunks or crashes.
fn content(path: &Path, stream: Stream) -> Vec<(Option<u32>, bool, String)> {
    let mut reader = LogReader::open(path).expect("open");
    let lines = reader.lines_from(0).expect("lines").map(|l| l.expect("line"));
    lines.filter(|l| l.stream == stream).map(|l| (l.step, l.continued, l.text)).collect()
}

fn mask() -> Mask {
    Mask::new([("TOKEN", "s3cr3t"), ("KEY", "first line\nab\nlast line")]).0
}

/// A source as a runner gives it: pieces of two streams.
type Source = Vec<(Pipe, Vec<u8>)>;

fn feed(writer: &mut LogWriter, source: &Source) -> Vec<StepMark> {
    let mut marks = Vec::new();
    for (i, (pipe, bytes)) in source.iter().enumerate() {
        marks.extend(writer.output(*pipe, Micros(i as i64), bytes).expect("output"));
    }
    marks
}

fn write_all(path: &Path, source: &Source) -> Vec<StepMark> {
    let mut writer = LogWriter::create(path, mask(), Some(NONCE)).expect("create");
    let mut marks = feed(&mut writer, source);
    marks.extend(writer.finish(Micros(9)).expect("finish"));
    marks
}

/// The same bytes of each stream in other pieces, the streams mixed in another way.
fn rechunk(source: &Source, size: usize) -> Source {
    let of = |pipe| source.iter().filter(|(p, _)| *p == pipe).flat_map(|(_, b)| b.clone()).collect::<Vec<u8>>();
    let pieces = |pipe| of(pipe).chunks(size).map(|c| (pipe, c.to_vec())).collect::<Source>();
    let (mut out, mut stdout) = (pieces(Pipe::Stderr), pieces(Pipe::Stdout));
    for (i, piece) in stdout.drain(..).enumerate() {
        out.insert((2 * i).min(out.len()), piece);
    }
    out
}

fn source() -> impl Strategy<Value = Source> {
    let mark = |text: &str| format!("\x1e{NONCE} {text}\x1e\n").into_bytes();
    let piece = prop_oneof![
        6 => "[a-z é]{0,12}\n".prop_map(String::into_bytes),
        2 => "[a-z]{1,6}".prop_map(String::into_bytes),
        1 => Just(b"s3cr3t".to_vec()),
        1 => Just(b"first line\nab\nlast line\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => Just(mark("begin 0 0")),
        1 => Just(mark("end 0 3")),
        1 => (60_000usize..90_000).prop_map(|n| "é\u{fffd}x".repeat(n / 3).into_bytes()),
    ];
    prop::collection::vec((prop::sample::select(vec![Pipe::Stdout, Pipe::Stderr]), piece), 1..24)
}

#[test]
fn a_log_as_text() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("train.a.log");
    let mut writer = LogWriter::create(&path, mask(), Some(NONCE)).expect("create");
    let at = Micros(1_795_419_810_123_456);
    writer.note(at, "pulling s3cr3t\nready").expect("note");
    let begin = format!("\x1e{NONCE} begin 0 0\x1e\n");
    let marks = writer.output(Pipe::Stdout, at, begin.as_bytes()).expect("output");
    assert_eq!(marks, [StepMark { step: 0, event: StepEvent::Begin }]);
    let marks = writer.output(Pipe::Stderr, at, format!("{begin}warn: s3cr3t\r\n").as_bytes()).expect("output");
    assert_eq!(marks, []);
    let end = format!("loss 0.2\nno newline\x1e{NONCE} end 0 1\x1e\nafter");
    let marks = writer.output(Pipe::Stdout, at, end.as_bytes()).expect("output");
    assert_eq!(marks, [StepMark { step: 0, event: StepEvent::End { code: 1 } }]);
    writer.finish(at).expect("finish");
    let text = fs::read_to_string(&path).expect("text");
    insta::assert_snapshot!(text.replace('\r', "<CR>"), @r"
    1795419810123456 s---  pulling ***
    1795419810123456 s---  ready
    1795419810123456 e000  warn: ***<CR>
    1795419810123456 o000  loss 0.2
    1795419810123456 o000+ no newline
    1795419810123456 o---+ after
    ");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The exactly-once rule: any chunks, any crash, any replay: the same records, and no secret.
    #[test]
    fn cut_anywhere_and_resumed_the_content_is_the_same(
        source in source(),
        sizes in prop::collection::vec(1usize..50_000, 3),
        crash in 0.0f64..1.0,
        in_prefix in 0u64..40,
    ) {
        let dir = tempfile::tempdir().expect("dir");
        let (whole, cut) = (dir.path().join("whole.log"), dir.path().join("cut.log"));
        let marks = write_all(&whole, &source);

        // Killed while writing: the file ends anywhere, the last lines are in nobody's memory.
        let mut writer = LogWriter::create(&cut, mask(), Some(NONCE)).expect("create");
        feed(&mut writer, &rechunk(&source, sizes[0]));
        drop(writer);
        let length = fs::metadata(&cut).expect("file").len();
        let kept = (length as f64 * crash) as u64;
        OpenOptions::new().write(true).open(&cut).expect("open").set_len(kept).expect("cut");

        let mut writer = LogWriter::resume(&cut, mask(), Some(NONCE)).expect("resume");
        writer.note(Micros(5), "resumed").expect("note");
        feed(&mut writer, &rechunk(&source, sizes[1]));
        drop(writer);

        // And killed a second time, near the end.
        let length = fs::metadata(&cut).expect("file").len();
        let file = OpenOptions::new().write(true).open(&cut).expect("open");
        file.set_len(length.saturating_sub(in_prefix)).expect("cut");
        let mut writer = LogWriter::resume(&cut, mask(), Some(NONCE)).expect("resume");
        let mut again = feed(&mut writer, &rechunk(&source, sizes[2]));
        again.extend(writer.finish(Micros(6)).expect("finish"));

        prop_assert_eq!(again, marks);
        for stream in [Stream::Stdout, Stream::Stderr] {
            prop_assert_eq!(content(&cut, stream), content(&whole, stream));
            for (_, _, text) in content(&whole, stream) {
                prop_assert!(!text.contains("s3cr3t") && !text.contains("last line"));
            }
        }

        // Resumed once more after its end: nothing is added.
        let before = fs::read(&cut).expect("read");
        let mut writer = LogWriter::resume(&cut, mask(), Some(NONCE)).expect("resume");
        feed(&mut writer, &source);
        writer.finish(Micros(7)).expect("finish");
        prop_assert_eq!(fs::read(&cut).expect("read"), before);
    }

    /// What an engine's own log gives back is not the same bytes: long lines come in blocks, torn characters are lost.
    #[test]
    fn an_engines_log_continues_an_overlong_line_at_the_same_place(
        line in "[a-zé😀\u{4e2d}]{30000,40000}",
        kept in 0.0f64..1.0,
    ) {
        const BLOCK: usize = 16 * 1024;
        let live: Source = vec![(Pipe::Stdout, format!("before\n{line}\nafter\n").into_bytes())];
        let mut torn = b"before\n".to_vec();
        for block in line.as_bytes().chunks(BLOCK) {
            for part in block.utf8_chunks() {
                torn.extend_from_slice(part.valid().as_bytes());
                torn.extend("\u{fffd}".repeat(part.invalid().len()).into_bytes());
            }
        }
        torn.extend_from_slice(b"\nafter\n");
        let dir = tempfile::tempdir().expect("dir");
        let (whole, cut) = (dir.path().join("whole.log"), dir.path().join("cut.log"));
        write_all(&whole, &live);
        let mut writer = LogWriter::create(&cut, mask(), Some(NONCE)).expect("create");
        feed(&mut writer, &live);
        drop(writer);
        let length = (fs::metadata(&cut).expect("file").len() as f64 * kept) as u64;
        OpenOptions::new().write(true).open(&cut).expect("open").set_len(length).expect("cut");
        let mut writer = LogWriter::resume(&cut, mask(), Some(NONCE)).expect("resume");
        feed(&mut writer, &vec![(Pipe::Stdout, torn)]);
        writer.finish(Micros(1)).expect("finish");

        let (got, expected) = (content(&cut, Stream::Stdout), content(&whole, Stream::Stdout));
        prop_assert_eq!(got.len(), expected.len());
        for ((_, got_open, got), (_, open, expected)) in got.iter().zip(&expected) {
            prop_assert_eq!(got_open, open);
            // Each piece stands for the same bytes; only torn characters are lost.
            let lost = got.matches('\u{fffd}').count();
            prop_assert_eq!(got.len() - 2 * lost, expected.len());
            let mut rest = expected.chars();
            let kept = got.chars().filter(|c| *c != '\u{fffd}').all(|c| rest.any(|e| e == c));
            prop_assert!(kept, "{} is not what is left of {}", got, expected);
        }
    }
}

/// A log of many lines, some long, on both streams.
fn long_log(path: &Path) -> Vec<String> {
    let mut writer = LogWriter::create(path, Mask::default(), None).expect("create");
    let mut texts = Vec::new();
    for i in 0..9000u32 {
        let text = if i % 700 == 3 { format!("{i} {}", "long ".repeat(9000)) } else { format!("line {i} of many") };
        let pipe = if i % 3 == 0 { Pipe::Stderr } else { Pipe::Stdout };
        writer.output(pipe, Micros(i.into()), format!("{text}\n").as_bytes()).expect("output");
        texts.push(text);
    }
    writer.finish(Micros(9)).expect("finish");
    texts
}

fn check_reading(path: &Path, texts: &[String]) {
    let mut reader = LogReader::open(path).expect("open");
    assert_eq!(reader.line_count().expect("count"), texts.len() as u64);
    for first in [0, 1, 702, 703, 1023, 1024, 4097, 8998, 8999] {
        let lines = reader.lines(first..first + 3, usize::MAX).expect("lines");
        let got: Vec<&str> = lines.iter().map(|l| l.text.as_str()).collect();
        let expected: Vec<&str> = texts.iter().skip(first as usize).take(3).map(String::as_str).collect();
        assert_eq!(got, expected, "{first}");
        assert_eq!(lines[0].number, first);
    }
    assert_eq!(reader.lines(9000..9010, 10).expect("lines"), []);
    assert_eq!(reader.lines(3..100, 50).expect("lines").len(), 1);
    let tail = reader.tail(2, usize::MAX).expect("tail");
    assert_eq!(tail.iter().map(|l| l.number).collect::<Vec<_>>(), [8998, 8999]);
    assert_eq!(reader.tail(100, 40).expect("tail").len(), 2);

    let found = reader.search("line 42 ", 5, 2).expect("search");
    assert!(!found.more);
    let numbers = |lines: &[Line]| lines.iter().map(|l| l.number).collect::<Vec<_>>();
    let hit = &found.hits[0];
    assert_eq!((numbers(&hit.before), hit.line.number, numbers(&hit.after)), (vec![40, 41], 42, vec![43, 44]));
    let found = reader.search("line 10", 3, 0).expect("search");
    assert_eq!(found.hits.iter().map(|h| h.line.number).collect::<Vec<_>>(), [10, 100, 101]);
    assert!(found.more);
    let near = reader.search("line 10", 3, 2).expect("search");
    assert_eq!(numbers(&near.hits[1].after), [101, 102]);
    assert_eq!(numbers(&near.hits[2].before), [99, 100]);
}

#[test]
fn a_log_is_read_the_same_plain_packed_and_without_its_index() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("test.3.12.log");
    let texts = long_log(&path);
    assert!(fs::metadata(index::path(&path)).expect("index").len() >= 32 * 8);
    check_reading(&path, &texts);
    let plain = fs::metadata(&path).expect("log").len();
    compress(&path).expect("compress");
    compress(&path).expect("again is fine");
    assert!(!path.exists() && fs::metadata(packed_path(&path)).expect("packed").len() < plain / 5);
    check_reading(&path, &texts);
    fs::remove_file(index::path(&path)).expect("remove");
    check_reading(&path, &texts);
    fs::write(index::path(&path), vec![7; 320]).expect("write");
    check_reading(&path, &texts);
}

#[test]
fn a_log_that_is_written_is_not_packed_and_a_packed_one_not_resumed() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.log");
    let mut writer = LogWriter::create(&path, mask(), None).expect("create");
    writer.output(Pipe::Stdout, Micros(1), b"one\ntwo\n").expect("output");
    assert!(matches!(compress(&path), Err(LogError::InUse { .. })));
    writer.finish(Micros(2)).expect("finish");
    compress(&path).expect("nobody writes it any more");
    let resumed = LogWriter::resume(&path, mask(), None);
    assert!(matches!(resumed, Err(LogError::Packed { .. })), "{resumed:?}");
    assert!(!path.exists(), "nothing was put before the packed log");
    assert_eq!(content(&path, Stream::Stdout).len(), 2);
}

#[test]
fn packing_that_was_cut_off_is_done_again() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.log");
    let texts = long_log(&path);
    let plain = fs::read(&path).expect("log");
    // Killed in the middle of packing.
    fs::write(dir.path().join("a.log.zst.tmp"), b"half").expect("write");
    check_reading(&path, &texts);
    compress(&path).expect("compress");
    // Killed between the packed log's rename and the plain one's removal.
    fs::write(&path, &plain).expect("write");
    check_reading(&path, &texts);
    compress(&path).expect("compress");
    assert!(!path.exists() && !dir.path().join("a.log.zst.tmp").exists());
    check_reading(&path, &texts);
    let mut unpacked = Vec::new();
    let packed = fs::File::open(packed_path(&path)).expect("open");
    std::io::copy(&mut zeekstd::Decoder::new(packed).expect("zstd"), &mut unpacked).expect("unpack");
    assert!(unpacked == plain, "the packed log is the plain one, byte for byte");
}

#[test]
fn a_reader_from_before_the_packing_reads_on() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.log");
    let texts = long_log(&path);
    let mut reader = LogReader::open(&path).expect("open");
    compress(&path).expect("compress");
    let lines = reader.lines(0..u64::MAX, usize::MAX).expect("lines");
    assert_eq!(lines.len(), texts.len());
    assert!(lines.iter().zip(&texts).all(|(line, text)| line.text == *text));
}

#[test]
fn the_index_points_at_records() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.log");
    long_log(&path);
    let log = fs::read(&path).expect("log");
    let check = |index: &[u8]| {
        for entry in index.chunks(32) {
            let word = |n: usize| u64::from_le_bytes(entry[8 * n..8 * n + 8].try_into().expect("8 bytes")) as usize;
            let before = &log[..word(0)];
            let lines = before.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            let count = |stream| lines.clone().filter(|l| parse(l).expect("record").stream == stream).count();
            assert_eq!(
                (word(1), word(2), word(3)),
                (count(Stream::Stdout), count(Stream::Stderr), count(Stream::Note))
            );
        }
    };
    let index = fs::read(index::path(&path)).expect("index");
    check(&index);
    drop(LogWriter::resume(&path, Mask::default(), None).expect("resume"));
    assert_eq!(fs::read(index::path(&path)).expect("index"), index);
}

#[test]
fn damage_is_named_and_cut_away_by_a_resume() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("a.log");
    let source = vec![(Pipe::Stdout, b"one\ntwo\n".to_vec())];
    write_all(&path, &source);
    let mut log = fs::read(&path).expect("read");
    let good = log.len();
    log.extend_from_slice(&[0; 100]);
    log.push(b'\n');
    fs::write(&path, log).expect("write");
    let error = LogReader::open(&path).expect("open").line_count().expect_err("damaged");
    assert_eq!(error.to_string(), format!("the log {} is damaged at byte {good}", path.display()));
    let mut writer = LogWriter::resume(&path, mask(), Some(NONCE)).expect("resume");
    assert_eq!(writer.len(), good as u64);
    feed(&mut writer, &source);
    writer.finish(Micros(1)).expect("finish");
    assert_eq!(content(&path, Stream::Stdout).len(), 2);
    let missing = LogReader::open(&dir.path().join("b.log")).err().expect("absent");
    assert!(matches!(missing, LogError::Absent { .. }), "{missing}");
}
