//! The promises of Trave, and the demonstration.
