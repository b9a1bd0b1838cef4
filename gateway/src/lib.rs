//! The security server.
