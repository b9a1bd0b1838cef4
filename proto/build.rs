//! Compiles the schema with cargo alone: protox stands in for protoc.

use std::path::PathBuf;

const FILES: [&str; 9] = [
    "trave/message/v1/message.proto",
    "trave/configuration/v1/configuration.proto",
    "trave/transport/v1/transport.proto",
    "trave/log/v1/log.proto",
    "trave/proof/v1/proof.proto",
    "trave/operator/v1/operator.proto",
    "trave/citizen/v1/citizen.proto",
    "trave/management/v1/management.proto",
    "trave/audit/v1/audit.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(FILES, ["schema"])?;
    // The services' stubs need tonic: trave-host generates them from these descriptors, over the types made here.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    prost_build::Config::new().bytes(["."]).out_dir(out).compile_fds(descriptors)?;
    Ok(())
}
