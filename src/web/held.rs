//! What is read for hours ends with the right to read it.

use std::time::Duration;

use futures_util::{Stream, StreamExt};

use super::App;
use super::auth::Caller;
use crate::engine::now;

/// Between two looks whether a right still holds. What is ended through this daemon is heard of at once; what passes its time,
/// or is ended beside it (`orchestrator tokens revoke`), at the next look.
const LOOK: Duration = Duration::from_secs(15);

/// The stream for as long as the caller's token or session holds. It ends without a word: whoever comes back for the rest is
/// told why there is none.
pub fn held<S: Stream>(caller: Caller, app: App, stream: S) -> impl Stream<Item = S::Item> {
    stream.take_until(end(caller, app))
}

async fn end(caller: Caller, app: App) {
    if !caller.can_end() {
        return std::future::pending().await;
    }
    let mut ends = app.guard.hear_ends();
    loop {
        tokio::select! {
            // The guard, which tells them, is held here.
            _ = ends.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        let (asked, at) = (caller.clone(), now());
        match app.engine.store.read(move |db| asked.holds(db, at)).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "a stream ends: nobody can say whether its reader may go on");
                return;
            }
        }
    }
}
