//! One test binary; one file a promise that users see.

mod load;
