//! What a build is and what comes next.
