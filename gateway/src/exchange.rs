//! An exchange, from first to last byte, on either side.
#![allow(dead_code, reason = "x")]
mod replay;
mod framing;
mod head;
mod reply;
