//! Traces reach a collector: whole, with the times of the rows, whatever was down meanwhile.

use crate::harness::eventually;
use crate::served::Site;

const PIPELINE: &str =
    "name: traced\nstages:\n  good: { run: [ { name: one, run: echo one } ] }\n  bad: { needs: [good], run: exit 3 }\n";

/// A program without the feature does not stay silent when it is asked for traces.
#[cfg(not(feature = "otel"))]
#[test]
fn a_program_without_them_says_so() {
    let site = Site::new(PIPELINE, "");
    let daemon = site.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]);
    eventually("it says so", || {
        std::fs::read_to_string(site.place.outside("daemon.log")).is_ok_and(|log| log.contains("--features otel"))
    });
    assert_eq!(daemon.terminate(), 0);
}

#[cfg(feature = "otel")]
mod sent {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::*;
    use crate::served::Served;

    const TOKEN: &str = "for-the-collector-alone";

    /// What a collector was sent.
    #[derive(Default)]
    struct Got {
        spans: Vec<Span>,
        services: Vec<String>,
        paths: Vec<String>,
        tokens: Vec<String>,
        /// It answers that it cannot take anything now.
        busy: bool,
    }

    /// A collector of OTLP over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp), one request a connection.
    struct Collector {
        address: SocketAddr,
        got: Arc<Mutex<Got>>,
    }

    impl Collector {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let got: Arc<Mutex<Got>> = Arc::default();
            let kept = Arc::clone(&got);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    answer(stream, &kept);
                }
            });
            Self { address, got }
        }

        fn is_busy(&self, busy: bool) {
            self.got.lock().unwrap().busy = busy;
        }

        fn spans(&self) -> Vec<Span> {
            self.got.lock().unwrap().spans.clone()
        }

        /// The spans of a build, by name.
        fn build(&self, id: u64) -> Vec<Span> {
            let spans = self.spans();
            let root = spans.iter().find(|span| text(span, "cicd.pipeline.run.id") == Some(id.to_string()));
            let Some(root) = root else { return Vec::new() };
            spans.iter().filter(|span| span.trace_id == root.trace_id).cloned().collect()
        }
    }

    fn answer(stream: TcpStream, got: &Mutex<Got>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = BTreeMap::new();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            head.insert(name.to_lowercase(), value.to_owned());
        }
        let length = head.get("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let mut got = got.lock().unwrap();
        let status = if got.busy { "503 Service Unavailable" } else { "200 OK" };
        if !got.busy {
            let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
            got.paths.push(path);
            got.tokens.extend(head.get("authorization").cloned());
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                let service = attributes.into_iter().find(|one| one.key == "service.name").unwrap();
                got.services.push(format!("{:?}", service.value));
                got.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        let head = "content-type: application/x-protobuf\r\ncontent-length: 0\r\nconnection: close";
        let mut stream = stream;
        let _ = write!(stream, "HTTP/1.1 {status}\r\n{head}\r\n\r\n");
    }

    fn text(span: &Span, name: &str) -> Option<String> {
        use opentelemetry_proto::tonic::common::v1::any_value::Value;
        let value = span.attributes.iter().find(|one| one.key == name)?.value.clone()?.value?;
        match value {
            Value::StringValue(text) => Some(text),
            Value::IntValue(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn serve(site: &Site, collector: SocketAddr) -> Served {
        let endpoint = format!("http://{collector}");
        let headers = format!("authorization=Bearer {TOKEN}");
        site.serve_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_EXPORTER_OTLP_HEADERS", &headers)])
    }

    #[test]
    fn a_build_is_a_trace_with_the_times_of_its_rows() {
        let collector = Collector::new();
        let site = Site::new(PIPELINE, "poll = \"watch\"\n");
        let daemon = serve(&site, collector.address);
        eventually("its trace is there", || !collector.build(1).is_empty());
        let spans = collector.build(1);
        let named =
            |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
        let root = named("build traced");
        let shown = daemon.get("/api/v1/builds/1");
        let nanos = |name: &str| shown[name].as_u64().unwrap() * 1000;
        assert_eq!((root.start_time_unix_nano, root.end_time_unix_nano), (nanos("created_at"), nanos("ended_at")));
        assert_eq!(named("queued").end_time_unix_nano, nanos("started_at"));
        assert_eq!(text(root, "cicd.pipeline.result").as_deref(), Some("failure"));
        assert_eq!(text(root, "vcs.ref.head.revision"), Some(site.git(&["rev-parse", "HEAD"])));
        let (good, bad) = (named("stage good"), named("stage bad"));
        assert_eq!((&good.parent_span_id, &bad.parent_span_id), (&root.span_id, &root.span_id));
        let code = |span: &Span| span.status.clone().unwrap().code;
        assert_eq!((code(good), code(bad), code(root)), (1, 2, 2), "ok, error, error");
        assert!(bad.status.clone().unwrap().message.contains("3"), "{bad:?}");
        let step = named("step one");
        let attempt = spans.iter().find(|span| span.span_id == step.parent_span_id).unwrap();
        assert_eq!((attempt.name.as_str(), &attempt.parent_span_id), ("attempt", &good.span_id));
        assert!(
            step.start_time_unix_nano >= good.start_time_unix_nano
                && step.end_time_unix_nano <= good.end_time_unix_nano
        );

        eventually("requests are there", || {
            collector.spans().iter().any(|span| span.name == "GET /api/v1/builds/{build}" && span.kind == 2)
        });
        assert_eq!(daemon.terminate(), 0);
        let got = collector.got.lock().unwrap();
        assert!(got.paths.iter().all(|path| path == "/v1/traces"), "{:?}", got.paths);
        assert!(got.tokens.iter().all(|token| token == &format!("Bearer {TOKEN}")) && !got.tokens.is_empty());
        assert!(got.services.iter().all(|name| name.contains("orchestrator")), "{:?}", got.services);
        let log = std::fs::read_to_string(site.place.outside("daemon.log")).unwrap();
        assert!(!log.contains(TOKEN), "{log}");
    }

    /// No build waits for a collector, and none is forgotten: it is sent when one is there again, also after kill -9.
    #[test]
    fn what_ended_without_a_collector_is_sent_later_and_once() {
        let collector = Collector::new();
        let site = Site::new(PIPELINE, "poll = \"watch\"\n");
        let daemon = serve(&site, collector.address);
        eventually("the first is sent", || !collector.build(1).is_empty());
        collector.is_busy(true);
        site.commit("second");
        eventually("the second has ended", || daemon.counts().get("failed") == Some(&2));
        daemon.kill();
        let (first, rest) = (collector.build(1).len(), collector.build(2).len());
        assert_eq!(rest, 0, "nobody took it");
        let other = Collector::new();
        let daemon = serve(&site, other.address);
        eventually("the second is sent", || other.build(2).len() == first);
        assert!(other.build(1).is_empty(), "the first was told already");
        assert_eq!(daemon.terminate(), 0);
    }
}
