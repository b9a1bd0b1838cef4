//! The trade register's interface, generated from `schema/gewerbe/v1/gewerbe.proto`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: the documentation stands in the schema"
)]

tonic::include_proto!("gewerbe.v1");

/// The schema itself, for clients in other languages.
pub const PROTO: &str = include_str!("../schema/gewerbe/v1/gewerbe.proto");
