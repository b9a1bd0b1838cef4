//! The central registry and its cosigner.
