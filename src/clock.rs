//! This machine's time, as rows and logs have it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ids::Micros;

/// By how much the time of this process is behind the machine's, in microseconds.
static BEHIND: AtomicI64 = AtomicI64::new(0);

/// This moment.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX).saturating_sub(behind()))
}

/// Lets this process, and the shims that it starts, live so many microseconds ago. The demo alone does this: builds that it makes
/// now are of the last weeks.
pub fn live_behind(micros: i64) {
    BEHIND.store(micros, Ordering::Relaxed);
}

/// By how much this process is behind the machine.
pub fn behind() -> i64 {
    BEHIND.load(Ordering::Relaxed)
}
