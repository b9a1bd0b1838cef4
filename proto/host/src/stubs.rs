//! gRPC stubs of the services in `proto/schema`, generated over the types of trave-proto.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: the documentation stands in the schema"
)]

/// Between two security servers.
pub mod transport {
    tonic::include_proto!("trave.transport.v1");
}
/// The operator door.
pub mod operator {
    tonic::include_proto!("trave.operator.v1");
}
/// The auditors' door.
pub mod audit {
    tonic::include_proto!("trave.audit.v1");
}
/// What a person may know.
pub mod citizen {
    tonic::include_proto!("trave.citizen.v1");
}
/// The registry's administration, enrolment and cosigning.
pub mod management {
    tonic::include_proto!("trave.management.v1");
}
