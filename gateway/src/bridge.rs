//! Bridges to existing X-Road instances: their services behind a service of ours, and ours behind a service of theirs. A
//! bridge signs as itself, and every message that passes it says so; what lies beyond it no proof of ours tells.

mod foreign_error;
mod from_x_road;
mod to_x_road;

pub(crate) use from_x_road::FromXRoad;
pub(crate) use to_x_road::{Crossing, ToXRoad};
