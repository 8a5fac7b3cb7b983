//! The pages in a real browser. A test binary of its own: the driver's crate adds to what `String + &String` may mean, which the
//! other tests need not know.

#![expect(clippy::unwrap_used, reason = "a test that fails says where")]

mod browser_axe;
mod browser_driver;
mod browser_logs;
mod browser_pages;
mod browser_people;
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod harness;
#[expect(dead_code, reason = "the other test binary uses the rest")]
mod served;
