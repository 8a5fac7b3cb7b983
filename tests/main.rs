//! The one integration test binary: each module proves one promise to the user.

mod runner_contract;
mod runner_local;
