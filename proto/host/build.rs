//! Generates the gRPC stubs over the types of trave-proto, with cargo alone: protox stands in for protoc.

const FILES: [&str; 5] = [
    "trave/transport/v1/transport.proto",
    "trave/operator/v1/operator.proto",
    "trave/citizen/v1/citizen.proto",
    "trave/management/v1/management.proto",
    "trave/audit/v1/audit.proto",
];
const PACKAGES: [&str; 8] =
    ["message", "configuration", "transport", "log", "operator", "citizen", "management", "audit"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../schema");
    let descriptors = protox::compile(FILES, ["../schema"])?;
    let mut builder = tonic_prost_build::configure().build_transport(false).bytes(".");
    for package in PACKAGES {
        builder = builder
            .extern_path(format!(".trave.{package}.v1"), format!("::trave_proto::schema::{package}::v1"));
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
