//! `trave-registry init`: the ceremony, from the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use trave_proto::clock::Clock;

use super::Failure;
use crate::ceremony::Ceremony;

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// Directory to make, with one directory in it for each hand
    directory: PathBuf,
    /// Name of the instance, as NORD
    #[arg(long)]
    instance: String,
    /// Name of the registry's configuration key
    #[arg(long, default_value = "registry")]
    registry_key: String,
    /// Name of the cosigner's configuration key
    #[arg(long, default_value = "cosigner")]
    cosigner_key: String,
    /// An administrator, as "Frauke Hansen=SH"; at least two, of two member classes
    #[arg(long = "administrator", value_name = "NAME=CLASS", required = true, value_parser = person)]
    administrators: Vec<(String, String)>,
    /// Door for security servers
    #[arg(long, default_value = "127.0.0.1:7443")]
    public: SocketAddr,
    /// Door for administrators
    #[arg(long, default_value = "127.0.0.1:7444")]
    admin: SocketAddr,
    /// The cosigner's door
    #[arg(long, default_value = "127.0.0.1:7445")]
    cosigner: SocketAddr,
    /// Cleartext door of the trust services; certificates name it
    #[arg(long, default_value = "127.0.0.1:7480")]
    trust_services: SocketAddr,
    /// Validity of a configuration
    #[arg(long, default_value_t = 24 * 60, value_name = "MINUTES")]
    validity_minutes: u32,
}

fn person(text: &str) -> Result<(String, String), String> {
    let parts = text.rsplit_once('=').filter(|(name, class)| !name.is_empty() && !class.is_empty());
    let (name, class) = parts.ok_or("write it as NAME=CLASS, as in \"Frauke Hansen=SH\"")?;
    Ok((name.into(), class.into()))
}

pub(super) fn run(arguments: &InitArguments, clock: Arc<dyn Clock>) -> Result<(), Failure> {
    let ceremony = Ceremony {
        instance: arguments.instance.clone(),
        registry_key: arguments.registry_key.clone(),
        cosigner_key: arguments.cosigner_key.clone(),
        administrators: arguments.administrators.clone(),
        public_listen: arguments.public,
        admin_listen: arguments.admin,
        trust_services_listen: arguments.trust_services,
        cosigner_listen: arguments.cosigner,
        validity_minutes: arguments.validity_minutes,
    };
    let instance = ceremony.perform(&arguments.directory, clock)?;
    println!("anchor               {}", instance.anchor_digest);
    println!("first configuration  {}", instance.genesis_digest);
    println!("{}", instance.registry.display());
    println!("{}", instance.cosigner.display());
    for administrator in &instance.administrators {
        println!("{}", administrator.display());
    }
    eprintln!("hint: each directory belongs on a machine of its own: the cosigner's in the other state, and");
    eprintln!("hint: each administrator's with that person; compare both digests in person");
    Ok(())
}
