//! What a saboteur between the two security servers can do, and what everybody sees of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

mod line;
