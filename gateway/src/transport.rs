//! The wire to other security servers: connections, and what each side shows of itself at their beginning.

mod greeting;
mod peers;

pub(crate) use greeting::{Greeted, Own, Session, TransportError, refused_greeting};
pub(crate) use peers::{MAX_WIRE, PeerConnection, Peers, Standing};
