//! `trave-registry init-witness`: the beginning of a witness, from the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::ceremony::WitnessCeremony;

#[derive(Debug, Args)]
pub(super) struct InitWitnessArguments {
    /// Directory to make
    directory: PathBuf,
    /// Name under which it cosigns, as witness.mv.example/w1
    #[arg(long)]
    name: String,
    /// Its door
    #[arg(long, default_value = "127.0.0.1:7490")]
    listen: SocketAddr,
    /// host:port of the registry whose security servers' logs it witnesses
    #[arg(long, requires_all = ["registry_key", "anchor"])]
    registry: Option<String>,
    /// SHA-256 of the SubjectPublicKeyInfo of the registry's TLS key, in hexadecimal
    #[arg(long, requires = "registry")]
    registry_key: Option<String>,
    /// The anchor file, received in person
    #[arg(long, requires = "registry")]
    anchor: Option<PathBuf>,
}

pub(super) fn init(arguments: InitWitnessArguments) -> Result<(), Failure> {
    let InitWitnessArguments { directory, name, listen, registry, registry_key, anchor } = arguments;
    let ceremony = WitnessCeremony { name, listen, registry: registry.zip(registry_key), anchor };
    let (configuration, key) = ceremony.perform(&directory)?;
    println!("{key}");
    println!("{}", configuration.display());
    eprintln!("hint: have an administrator register the key: trave-registry admin witness add");
    Ok(())
}
