//! A thread of the generator: a single-threaded runtime with its share of the users, or of the requests that are due.
//!
//! Nothing is shared between threads but the plan: each has its own mix, recorder and connections, and hands in its
//! account once a second. That a thread keeps up is measured in the thread itself.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::judge::checks::{Answer, Checks};
use crate::load::checks::excerpt;
use crate::load::encode::Encoded;
use crate::load::http::{Ask, BODY_KEPT, Connection, ExchangeError, Keep, Reply};
use crate::load::measure::{Interval, Recorder, Timing, normalise};
use crate::load::mix::{Mix, Part, Pick};
use crate::load::pacer::Pacer;
use crate::load::report::LoadModel;
use crate::load::schedule::{Arrivals, Timeline};
use crate::load::target::Endpoint;
use crate::load::usage::{Shares, Usage};
use crate::pipeline::types::Expect;

/// How often a thread looks at itself: whether it runs in time, and whether a second ended.
const LOOK: Duration = Duration::from_millis(10);

/// The runtime's timer goes off on whole milliseconds: that much is not lateness, in nanoseconds.
const TIMER_STEP: u64 = 1_000_000;

/// Of an answer's body, this much is kept as the example of a failure, in bytes.
const EXAMPLE: usize = 1024;

/// A user who got no answer at all (refused, closed, timed out) waits this long, then twice as long, up to
/// [`LONGEST_PAUSE`]: a dead server must not be asked a hundred thousand times a second.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(160);

/// Requests handed out in one go before connections get their turn.
const BURST: u32 = 32;

/// One kind of request, ready to be sent.
pub(super) struct Prepared {
    pub encoded: Encoded,
    pub lines: Vec<Bytes>,
    pub weight: u32,
    checks: Checks,
    /// Where only the status matters: the one, or any 2xx.
    status_only: Option<Option<u16>>,
    keep: Keep,
}

impl Prepared {
    pub(super) fn new(encoded: Encoded, lines: Vec<Bytes>, weight: u32, expect: &Expect) -> Self {
        let needs_body = !expect.json.is_empty() || expect.body_contains.is_some();
        let plain = !needs_body && expect.headers.is_empty() && expect.latency.is_none();
        let keep =
            Keep { headers: !expect.headers.is_empty(), body: if needs_body { Keep::ALL.body } else { BODY_KEPT } };
        Self { encoded, lines, weight, checks: Checks::new(expect), status_only: plain.then_some(expect.status), keep }
    }

    fn line(&self, turn: u64) -> Option<&Bytes> {
        let count = self.lines.len() as u64;
        let index = usize::try_from(turn.checked_rem(count)?).ok()?;
        self.lines.get(index)
    }

    fn is_plainly_good(&self, status: u16) -> bool {
        match self.status_only {
            Some(Some(wanted)) => status == wanted,
            Some(None) => (200..300).contains(&status),
            None => false,
        }
    }
}

/// What all threads share.
pub(super) struct Shared {
    pub endpoint: Endpoint,
    pub items: Vec<Prepared>,
    pub model: LoadModel,
    pub timeline: Timeline,
    pub request_timeout: Duration,
    /// When load starts.
    pub epoch: Instant,
    pub threads: u32,
    pub seed: u64,
}

/// What a thread tells.
pub(super) enum Message {
    /// Its account of a second.
    Second(Interval),
    /// It is done.
    Done {
        /// What it did with the counted time.
        shares: Shares,
        /// When, in nanoseconds since load started.
        ended: u64,
    },
}

/// Where a thread sends to: its number, and the channel.
pub(super) type Outbox = mpsc::Sender<(u32, Message)>;

/// Everything of one thread.
struct Thread {
    shared: Arc<Shared>,
    index: u32,
    recorder: RefCell<Recorder>,
    mix: RefCell<Mix>,
}

impl Thread {
    fn now(&self) -> u64 {
        u64::try_from(self.shared.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn moment(&self, at: u64) -> Instant {
        self.shared.epoch + Duration::from_nanos(at)
    }

    fn pick(&self) -> Pick {
        self.mix.borrow_mut().pick()
    }
}

/// Runs one thread until the load is over or `cancel` fires.
///
/// # Errors
/// If the runtime cannot be made.
pub(super) fn run_thread(
    shared: Arc<Shared>,
    index: u32,
    outbox: &Outbox,
    cancel: &CancellationToken,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let weights: Vec<u32> = shared.items.iter().map(|item| item.weight).collect();
    let part = Part { index, of: shared.threads };
    let thread = Rc::new(Thread {
        recorder: RefCell::new(Recorder::new(shared.items.len(), shared.timeline)),
        mix: RefCell::new(Mix::new(&weights, part, shared.seed)),
        shared,
        index,
    });
    let local = LocalSet::new();
    local.block_on(&runtime, watch(thread, outbox, cancel));
    Ok(())
}

/// Runs the load, and beside it looks after time: closed seconds are handed in, lateness and processor time are noted.
async fn watch(thread: Rc<Thread>, outbox: &Outbox, cancel: &CancellationToken) {
    let timeline = thread.shared.timeline;
    let mut load = pin!(put_load(Rc::clone(&thread)));
    let mut usage = Usage::default();
    let mut look_at = thread.now().saturating_add(duration_nanos(LOOK));
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            () = &mut load => break,
            () = sleep_until(thread.moment(look_at).into()) => {}
        }
        let now = thread.now();
        usage.look(now, timeline);
        {
            let mut recorder = thread.recorder.borrow_mut();
            recorder.lag(look_at.saturating_add(TIMER_STEP), now);
            recorder.advance(now);
        }
        look_at = now.saturating_add(duration_nanos(LOOK));
        hand_in(&thread, outbox).await;
    }
    let ended = thread.now();
    usage.look(ended, timeline);
    {
        let mut recorder = thread.recorder.borrow_mut();
        recorder.advance(ended);
        recorder.finish();
    }
    hand_in(&thread, outbox).await;
    // Nobody to tell: the test was dropped.
    let _ = outbox.send((thread.index, Message::Done { shares: usage.shares(ended), ended })).await;
}

async fn hand_in(thread: &Thread, outbox: &Outbox) {
    loop {
        let Some(interval) = thread.recorder.borrow_mut().take() else { return };
        if outbox.send((thread.index, Message::Second(interval))).await.is_err() {
            return;
        }
    }
}

fn duration_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn put_load(thread: Rc<Thread>) {
    match thread.shared.model {
        LoadModel::Closed { users } => put_users(thread, users).await,
        LoadModel::Open { per_second, max_in_flight } => put_rate(thread, per_second, max_in_flight).await,
    }
}

/// Every `threads`-th user is this thread's.
async fn put_users(thread: Rc<Thread>, users: u32) {
    let mut tasks = JoinSet::new();
    for number in (thread.index..users).step_by(thread.shared.threads as usize) {
        let start = thread.shared.timeline.user_start(number, users);
        tasks.spawn_local(be_user(Rc::clone(&thread), start));
    }
    join_all(tasks).await;
}

async fn join_all(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        pass_on_panic(ended);
    }
}

/// A bug in a task must not look like a quiet server.
fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

async fn be_user(thread: Rc<Thread>, start: u64) {
    sleep_until(thread.moment(start).into()).await;
    *thread.recorder.borrow_mut().users() += 1;
    let mut session = Session::new();
    let mut pause = FIRST_PAUSE;
    loop {
        let due = thread.now();
        if due >= thread.shared.timeline.end {
            break;
        }
        match session.perform(&thread, Due { pick: thread.pick(), at: due }).await {
            Served::Answered => pause = FIRST_PAUSE,
            Served::Unanswered => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    *thread.recorder.borrow_mut().users() -= 1;
}

/// A request to make.
#[derive(Clone, Copy)]
struct Due {
    pick: Pick,
    at: u64,
}

/// Connections of the open model: each waits to be given a request.
struct Pool {
    idle: RefCell<Vec<Rc<Slot>>>,
    closing: Cell<bool>,
}

#[derive(Default)]
struct Slot {
    due: Cell<Option<Due>>,
    wake: Notify,
}

/// Every `threads`-th request is this thread's, and its share of what may be unanswered.
async fn put_rate(thread: Rc<Thread>, per_second: f64, max_in_flight: u32) {
    let threads = thread.shared.threads;
    let most = (max_in_flight / threads + u32::from(thread.index < max_in_flight % threads)) as usize;
    let arrivals = Arrivals::new(thread.shared.timeline, per_second);
    let pool = Rc::new(Pool { idle: RefCell::new(Vec::new()), closing: Cell::new(false) });
    let pacer = Pacer::new().ok();
    let mut slots: Vec<Rc<Slot>> = Vec::new();
    let mut tasks = JoinSet::new();
    let mut number = u64::from(thread.index);
    let mut burst = 0;
    while let Some(at) = arrivals.due(number) {
        number += u64::from(threads);
        if thread.now() < at {
            wait_until(pacer.as_ref(), thread.moment(at)).await;
            burst = 0;
        } else {
            burst += 1;
            if burst % BURST == 0 {
                tokio::task::yield_now().await;
            }
        }
        let due = Due { pick: thread.pick(), at };
        let idle = pool.idle.borrow_mut().pop();
        let slot = match idle {
            Some(slot) => slot,
            None if slots.len() < most => {
                let slot = Rc::new(Slot::default());
                slots.push(Rc::clone(&slot));
                tasks.spawn_local(be_connection(Rc::clone(&thread), Rc::clone(&pool), Rc::clone(&slot)));
                slot
            }
            None => {
                thread.recorder.borrow_mut().dropped(due.pick.item, at);
                continue;
            }
        };
        *thread.recorder.borrow_mut().users() += 1;
        slot.due.set(Some(due));
        slot.wake.notify_one();
    }
    pool.closing.set(true);
    slots.iter().for_each(|slot| slot.wake.notify_one());
    join_all(tasks).await;
}

async fn wait_until(pacer: Option<&Pacer>, moment: Instant) {
    let precise = match pacer {
        Some(pacer) => pacer.until(moment).await.is_ok(),
        None => false,
    };
    if !precise {
        sleep_until(moment.into()).await;
    }
}

async fn be_connection(thread: Rc<Thread>, pool: Rc<Pool>, slot: Rc<Slot>) {
    let mut session = Session::new();
    loop {
        slot.wake.notified().await;
        if let Some(due) = slot.due.take() {
            {
                let now = thread.now();
                thread.recorder.borrow_mut().lag(due.at, now);
            }
            session.perform(&thread, due).await;
            *thread.recorder.borrow_mut().users() -= 1;
            pool.idle.borrow_mut().push(Rc::clone(&slot));
        }
        if pool.closing.get() {
            return;
        }
    }
}

/// How a request ended, as far as the next one is concerned.
enum Served {
    /// There was an answer, good or bad.
    Answered,
    /// There was none.
    Unanswered,
}

/// One user's connection and buffers.
struct Session {
    connection: Option<Connection>,
    space: Vec<u8>,
    reply: Reply,
    deadline: Deadline,
}

impl Session {
    fn new() -> Self {
        Self { connection: None, space: Vec::new(), reply: Reply::default(), deadline: Deadline::new() }
    }

    /// Sends one request, reads its answer, judges and records it.
    async fn perform(&mut self, thread: &Thread, due: Due) -> Served {
        let shared = &*thread.shared;
        let prepared = &shared.items[due.pick.item];
        thread.recorder.borrow_mut().sent(due.pick.item, due.at);
        let Self { connection, space, reply, deadline } = self;
        let attempt = async {
            let usable = connection.take().and_then(|mut open| open.is_usable().then_some(open));
            let open = connection.insert(match usable {
                Some(open) => open,
                None => Connection::open(&shared.endpoint).await?,
            });
            let bytes = prepared.encoded.bytes(prepared.line(due.pick.turn), space);
            let ask = Ask { bytes, is_head: prepared.encoded.is_head(), keep: prepared.keep };
            open.exchange(ask, reply).await
        };
        let limit = shared.request_timeout;
        let ended = deadline.within(limit, attempt).await.unwrap_or(Err(ExchangeError::Timeout(limit)));
        let timing = Timing { item: due.pick.item, due: due.at, done: thread.now() };
        match ended {
            Ok(()) => {
                self.judge(thread, timing, prepared);
                Served::Answered
            }
            Err(error) => {
                self.connection = None;
                let mut recorder = thread.recorder.borrow_mut();
                recorder.failed(timing, error.kind(), &error.grouped(), &|| Some(error.to_string()));
                if matches!(error, ExchangeError::Exhausted(_)) {
                    recorder.own_failure();
                }
                Served::Unanswered
            }
        }
    }

    fn judge(&mut self, thread: &Thread, timing: Timing, prepared: &Prepared) {
        let mut recorder = thread.recorder.borrow_mut();
        let reply = &mut self.reply;
        if prepared.is_plainly_good(reply.status) {
            recorder.good(timing, reply.body_bytes);
            return;
        }
        let answer = Answer {
            status: reply.status,
            headers: std::mem::take(&mut reply.headers),
            body: &reply.body,
            latency: Duration::from_nanos(timing.done.saturating_sub(timing.due)),
        };
        let failures = prepared.checks.failures(&answer);
        let Some(first) = failures.first() else {
            recorder.good(timing, reply.body_bytes);
            return;
        };
        let body = &reply.body[..reply.body.len().min(EXAMPLE)];
        let (kind, message) = if first.starts_with("status") {
            let body = normalise(&excerpt(body));
            (format!("status {}", reply.status), if body.is_empty() { "(empty body)".to_owned() } else { body })
        } else {
            ("unexpected answer".to_owned(), normalise(&failures.join("; ")))
        };
        recorder.failed(timing, &kind, &message, &|| Some(format!("{}\n{}", failures.join("\n"), excerpt(body))));
    }
}

/// A time limit for one request after the other with a timer that is hardly ever touched: it is only set again when it
/// goes off, and a request that is answered in time costs nothing.
struct Deadline {
    sleep: Pin<Box<Sleep>>,
}

impl Deadline {
    fn new() -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    /// The future's value, or `None` if it takes longer than `limit`.
    async fn within<F: Future>(&mut self, limit: Duration, future: F) -> Option<F::Output> {
        let until = Instant::now() + limit;
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(value) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            // A server that sends without end leaves the timer no turn: the runtime grants a task only so much at once.
            if Instant::now() >= until {
                return Poll::Ready(None);
            }
            // The timer is never set later than the running request's limit: limits only grow.
            while self.sleep.as_mut().poll(cx).is_ready() {
                if Instant::now() >= until {
                    return Poll::Ready(None);
                }
                self.sleep.as_mut().reset(until.into());
            }
            Poll::Pending
        })
        .await
    }
}
