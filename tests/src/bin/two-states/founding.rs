//! Founding the instance: the ceremony of the keys, the directories, and what the two administrators decide.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use trave_host::clock::SystemClock;
use trave_proto::checkpoint::WitnessVerifier;
use trave_proto::management::ActId;
use trave_proto::schema::configuration::v1 as configuration;
use trave_proto::schema::management::v1::act::Change;
use trave_registry::administrator::{Administrator, AdministratorError};
use trave_registry::ceremony::{Ceremony, WitnessCeremony};
use trave_registry::config::AdministratorSettings;

use crate::Own;
use crate::configuration as files;
use crate::endpoints::{self, Call, Endpoints, free_addresses};
use crate::instance::{
    AKTEN, AUSKUNFT, CLIENT, ERLAUBNIS_GUELTIG, GEWERBEREGISTER, LEGAL_BASIS, LUEBECK, OTHER_PURPOSE, PURPOSE,
};

/// Where the ceremony leaves its directories.
const NORD: &str = "nord";
/// One administrator of each state.
pub(crate) const ANNA: (&str, &str) = ("Anna Albrecht", "SH");
pub(crate) const BERND: (&str, &str) = ("Bernd Brandt", "MV");

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Writes everything that stands on disk before the first server starts. `own` is what the visitor brings.
pub(crate) fn prepare(dir: &Path, own: &Own) -> anyhow::Result<Endpoints> {
    let [
        agency,
        peer_sh,
        operations_sh,
        peer_mv,
        operations_mv,
        ours,
        public,
        admin,
        trust,
        cosigner,
        witness_sh,
        witness_mv,
    ] = free_addresses()?;
    let register = own.grpc.clone().unwrap_or_else(|| ours.to_string());
    let rest = own.rest.clone().unwrap_or_else(|| format!("http://{ours}/akten"));
    Ceremony {
        instance: "NORD".into(),
        registry_key: "registry-sh".into(),
        cosigner_key: "cosigner-mv".into(),
        administrators: [ANNA, BERND].map(|(name, class)| (name.into(), class.into())).to_vec(),
        public_listen: public,
        admin_listen: admin,
        trust_services_listen: trust,
        cosigner_listen: cosigner,
        validity_minutes: 24 * 60,
    }
    .perform(&dir.join(NORD), Arc::new(SystemClock))
    .context("the ceremony of the keys failed")?;
    let schema = "gewerbe.proto";
    let endpoints = Endpoints {
        call: Call {
            address: agency,
            metadata: [
                ("x-road-service", AUSKUNFT),
                ("trave-purpose", PURPOSE),
                ("trave-legal-basis", LEGAL_BASIS),
                ("x-road-userid", "k.moeller"),
                ("x-road-issue", "GA-2026-1187"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
        },
        rest: endpoints::Rest {
            base: format!("http://{agency}/r1/{AKTEN}"),
            headers: [
                ("x-road-client", CLIENT),
                ("trave-purpose", PURPOSE),
                ("trave-legal-basis", LEGAL_BASIS),
                ("x-road-userid", "k.moeller"),
                ("x-road-issue", "GA-2026-1187"),
            ]
            .map(|(name, value)| (name.into(), value.into()))
            .into(),
            register: rest,
        },
        schema: Some(schema.into()),
        anchor: format!("{NORD}/registry/anchor"),
        luebeck: security_server(LUEBECK, "luebeck", peer_sh, operations_sh),
        gewerberegister: security_server(GEWERBEREGISTER, "gewerberegister", peer_mv, operations_mv),
        registry: endpoints::Registry {
            configuration: format!("{NORD}/registry/registry.toml"),
            admin,
            public,
            trust_services: trust,
        },
        cosigner: endpoints::Cosigner {
            configuration: format!("{NORD}/cosigner/cosigner.toml"),
            address: cosigner,
        },
        witnesses: [("SH", witness_sh), ("MV", witness_mv)]
            .into_iter()
            .map(|(class, listen)| witness(dir, class, listen, public))
            .collect::<Result<_, _>>()?,
        administrators: [("anna", ANNA.0), ("bernd", BERND.0)]
            .map(|(key, name)| (key.to_owned(), administrator_files(name)))
            .into(),
        register,
    };
    write_security_server(&dir.join("luebeck"), &files::luebeck(&endpoints))?;
    write_security_server(&dir.join("gewerberegister"), &files::gewerberegister(&endpoints))?;
    directory(&dir.join("register"))?;
    fs::write(dir.join(schema), trave_tests::gewerbe::PROTO)?;
    Ok(endpoints)
}

/// A witness of the state of this member class, which follows the registry at `public`.
fn witness(
    dir: &Path,
    class: &str,
    listen: SocketAddr,
    public: SocketAddr,
) -> anyhow::Result<endpoints::Witness> {
    let settings = AdministratorSettings::load(&dir.join(administrator_files(ANNA.0).configuration))?;
    let state = class.to_lowercase();
    let ceremony = WitnessCeremony {
        name: format!("witness.{state}.example/w1"),
        listen,
        registry: Some((public.to_string(), settings.registry_key.to_string())),
        anchor: Some(dir.join(NORD).join("registry/anchor")),
    };
    let folder = format!("witness-{state}");
    let (_, key) = ceremony.perform(&dir.join(&folder)).context("no witness can be made")?;
    Ok(endpoints::Witness {
        class: class.into(),
        configuration: format!("{folder}/witness.toml"),
        address: listen,
        key: key.to_string(),
    })
}

fn security_server(
    id: &str,
    folder: &str,
    peer: SocketAddr,
    operations: SocketAddr,
) -> endpoints::SecurityServer {
    endpoints::SecurityServer {
        id: id.into(),
        configuration: format!("{folder}/gateway.toml"),
        peer,
        operations,
        operator: format!("{folder}/data/operator.sock"),
    }
}

fn administrator_files(name: &str) -> endpoints::Administrator {
    let folder = name.to_lowercase().replace(' ', "-");
    endpoints::Administrator {
        name: name.into(),
        configuration: format!("{NORD}/administrators/{folder}/admin.toml"),
    }
}

/// What a security server's operator makes before anything else: a directory of their own, the configuration, a passphrase.
fn write_security_server(path: &Path, gateway_toml: &str) -> anyhow::Result<()> {
    directory(path)?;
    fs::write(path.join("gateway.toml"), gateway_toml)?;
    let mut random = [0; 24];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut random)
        .map_err(|_| anyhow::anyhow!("the operating system gives no random numbers"))?;
    secret(&path.join("passphrase"), &hex::encode(random))
}

/// A new directory, its owner's alone.
fn directory(path: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.with_context(|| format!("cannot make {}", path.display()))
}

/// A new file that its owner alone can read.
pub(crate) fn secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(std::io::Write::write_all(&mut file, text.as_bytes())?)
}

/// The two administrators, signed in at the registry from their own directories.
pub(crate) struct Administrators {
    pub(crate) anna: Administrator,
    pub(crate) bernd: Administrator,
}

impl Administrators {
    pub(crate) async fn sign_in(dir: &Path, endpoints: &Endpoints) -> anyhow::Result<Self> {
        let anna = sign_in(dir, endpoints, "anna").await?;
        let bernd = sign_in(dir, endpoints, "bernd").await?;
        Ok(Self { anna, bernd })
    }

    /// Anna applies, Bernd approves; answers the number of the configuration that it is in.
    pub(crate) async fn decide(&mut self, change: Change) -> anyhow::Result<u64> {
        let id = self.anna.apply(change, DAY).await.map_err(explained)?;
        self.bernd.approve(id, None).await.map_err(explained)
    }

    /// Anna applies and tries to approve it herself; answers what the registry says to that.
    pub(crate) async fn alone(&mut self, change: Change) -> anyhow::Result<Result<u64, AdministratorError>> {
        let id = self.anna.apply(change, DAY).await.map_err(explained)?;
        let approved = self.anna.approve(id, None).await;
        self.bernd.reject(id, "applied for and approved by one person").await.map_err(explained)?;
        Ok(approved)
    }

    /// The enrolment that `server` asked for: its act, and the fingerprint of the keys that the registry received.
    pub(crate) async fn requested_enrolment(
        &mut self,
        server: &str,
    ) -> anyhow::Result<Option<(ActId, String)>> {
        let acts = self.anna.acts(true).await.map_err(explained)?;
        Ok(acts.into_iter().find_map(|shown| match shown.act.change() {
            Change::EnrolSecurityServer(enrolment) if enrolment.id == server => {
                Some((shown.act.id(), shown.fingerprint()?))
            }
            _ => None,
        }))
    }
}

async fn sign_in(dir: &Path, endpoints: &Endpoints, who: &str) -> anyhow::Result<Administrator> {
    let files = endpoints.administrators.get(who).context("there is no such administrator")?;
    let settings = AdministratorSettings::load(&dir.join(&files.configuration))?;
    Administrator::connect(settings, Arc::new(SystemClock)).await.map_err(explained)
}

/// An administrator's error with all its causes.
pub(crate) fn explained(error: AdministratorError) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// Everything that must be decided before the security servers can enrol.
pub(crate) fn changes(endpoints: &Endpoints, own_register: bool) -> Vec<Change> {
    let mut changes = registered(endpoints, own_register);
    changes.extend(endpoints.witnesses.iter().filter_map(put_witness));
    changes
}

fn put_witness(witness: &endpoints::Witness) -> Option<Change> {
    let key: WitnessVerifier = witness.key.parse().ok()?;
    Some(Change::PutWitness(configuration::Witness {
        name: key.name().into(),
        public_key: key.public_key().to_vec().into(),
        class: witness.class.clone(),
        url: format!("http://{}", witness.address),
    }))
}

fn registered(endpoints: &Endpoints, own_register: bool) -> Vec<Change> {
    let methods = |ours: &str| vec![if own_register { "/*".to_owned() } else { ours.to_owned() }];
    vec![
        member("NORD/SH/luebeck", "Hansestadt Lübeck (Beispiel)", CLIENT, "Gewerbeamt"),
        member(
            "NORD/MV/gewerberegister",
            "Gewerberegister Mecklenburg-Vorpommern (Beispiel)",
            "NORD/MV/gewerberegister/register",
            "Register",
        ),
        server(LUEBECK, endpoints.luebeck.peer, CLIENT),
        server(GEWERBEREGISTER, endpoints.gewerberegister.peer, "NORD/MV/gewerberegister/register"),
        Change::PutPurpose(entry(PURPOSE, "A business moves", "Ummeldung eines Gewerbes", "")),
        Change::PutPurpose(entry(OTHER_PURPOSE, "Statistics", "Statistik", "")),
        Change::PutLegalBasis(entry(
            LEGAL_BASIS,
            "Notification of a business",
            "Anzeige eines Gewerbes",
            "Beispiel: § 14 GewO; keine Rechtsauskunft",
        )),
        service(AUSKUNFT, "Auskunft aus dem Gewerberegister", methods("/gewerbe.v1.Register/Auskunft")),
        service(ERLAUBNIS_GUELTIG, "Ist eine Erlaubnis gültig?", methods("/gewerbe.v1.Erlaubnis/IstGueltig")),
        rest_service(AKTEN, "Akten des Gewerberegisters"),
    ]
}

fn member(id: &str, name: &str, subsystem: &str, subsystem_name: &str) -> Change {
    let subsystems = vec![configuration::Subsystem { id: subsystem.into(), name: subsystem_name.into() }];
    Change::PutMember(configuration::Member { id: id.into(), name: name.into(), subsystems })
}

fn server(id: &str, address: SocketAddr, subsystem: &str) -> Change {
    Change::PutSecurityServer(configuration::SecurityServer {
        id: id.into(),
        address: address.to_string(),
        subsystems: vec![subsystem.into()],
        ..Default::default()
    })
}

fn entry(code: &str, text: &str, text_de: &str, citation: &str) -> configuration::CatalogueEntry {
    let citation = if citation.is_empty() { "Beispiel" } else { citation };
    configuration::CatalogueEntry {
        code: code.into(),
        text: text.into(),
        text_de: text_de.into(),
        citation: citation.into(),
    }
}

fn rest_service(id: &str, title: &str) -> Change {
    match service(id, title, Vec::new()) {
        Change::PutService(service) => {
            let kind = configuration::ServiceKind::Rest.into();
            Change::PutService(configuration::Service { kind, ..service })
        }
        other => other,
    }
}

fn service(id: &str, title: &str, methods: Vec<String>) -> Change {
    Change::PutService(configuration::Service {
        id: id.into(),
        title: title.into(),
        kind: configuration::ServiceKind::Grpc.into(),
        methods,
        purposes: vec![PURPOSE.into(), OTHER_PURPOSE.into()],
    })
}
