//! The global configuration of the instance NORD, and the two keys that must sign it.

use bytes::Bytes;
use prost::Message;
use trave_host::keys::NoteKey;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::{Anchor, AnchorKey, sign_configuration};
use trave_proto::schema::configuration::{
    Algorithm, CatalogueEntry, GlobalConfiguration, LogKey, Member, Policy, SecurityServer, Service,
    ServiceKind, SignedConfiguration, Subsystem, TrustServices,
};
use trave_proto::schema::log::GrantChange;

use super::keys::{Identities, Keys};
use super::{
    CLIENT, EMPTY_SERVICE, KIEL, LEGAL_BASIS, LUEBECK, OTHER_CLIENT, OTHER_LEGAL_BASIS, OTHER_PURPOSE,
    PURPOSE, REGISTER, REGISTER_TOO, REST_SERVICE, SERVICE,
};

const KEYS: [&str; 2] = ["registry-sh", "cosigner-mv"];
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The configuration keys: one in each state, and both must sign.
#[derive(Debug)]
pub struct ConfigurationKeys([NoteKey; 2]);

impl Default for ConfigurationKeys {
    fn default() -> Self {
        Self([NoteKey::generate().unwrap(), NoteKey::generate().unwrap()])
    }
}

impl ConfigurationKeys {
    /// The anchor that names them.
    pub fn anchor(&self) -> Anchor {
        let named = KEYS.iter().zip(&self.0);
        let keys = named.map(|(name, key)| AnchorKey { name: (*name).into(), public_key: key.public_key() });
        Anchor::new("NORD", 1, 2, keys.collect()).unwrap()
    }

    /// `configuration`, signed by both.
    pub fn sign(&self, configuration: &GlobalConfiguration) -> SignedConfiguration {
        self.sign_by(configuration, 2)
    }

    /// `configuration`, signed by the first `count`.
    pub fn sign_by(&self, configuration: &GlobalConfiguration, count: usize) -> SignedConfiguration {
        let bytes = Bytes::from(configuration.encode_to_vec());
        let named = KEYS.iter().zip(&self.0).take(count);
        let signatures =
            named.map(|(name, key)| sign_configuration(&bytes, name, |content| key.sign(content))).collect();
        SignedConfiguration { configuration: bytes, signatures }
    }
}

/// The configuration after `before`: the next number, chained to it, issued now.
pub(super) fn successor(before: &SignedConfiguration, issued_ms: i64) -> GlobalConfiguration {
    let configuration = GlobalConfiguration::decode(before.configuration.clone()).unwrap();
    GlobalConfiguration {
        number: configuration.number + 1,
        previous: Digest::of(&before.configuration).to_bytes(),
        issued_ms,
        valid_until_ms: issued_ms + DAY_MS,
        ..configuration
    }
}

/// Number 1: three members, three services, and the security servers that have an address.
pub(super) fn first(
    trust_services: TrustServices,
    address: impl Fn(&str) -> Option<String>,
    issued_ms: i64,
) -> GlobalConfiguration {
    let servers = [
        (REGISTER, &["NORD/MV/gewerberegister/register"][..]),
        (REGISTER_TOO, &["NORD/MV/gewerberegister/register"]),
        (KIEL, &["NORD/SH/kiel/gewerbeamt"]),
        (LUEBECK, &[OTHER_CLIENT, CLIENT]),
    ];
    GlobalConfiguration {
        version: 1,
        instance: "NORD".into(),
        number: 1,
        issued_ms,
        valid_until_ms: issued_ms + DAY_MS,
        members: vec![
            member("NORD/MV/gewerberegister", &["NORD/MV/gewerberegister/register"]),
            member("NORD/SH/kiel", &["NORD/SH/kiel/gewerbeamt"]),
            member("NORD/SH/luebeck", &[OTHER_CLIENT, CLIENT]),
        ],
        security_servers: servers
            .into_iter()
            .filter_map(|(id, subsystems)| Some(server(id, subsystems, address(id)?)))
            .collect(),
        services: vec![rest_service(), service(EMPTY_SERVICE), service(SERVICE)],
        purposes: vec![entry(OTHER_PURPOSE), entry(PURPOSE), entry("statistik")],
        legal_bases: vec![entry(OTHER_LEGAL_BASIS), entry(LEGAL_BASIS)],
        trust_services: Some(trust_services),
        administrators: Vec::new(),
        policy: Some(Policy {
            merge_delay_ms: DAY_MS.unsigned_abs(),
            ocsp_max_age_ms: 2 * 3_600_000,
            approval_by_other_class: true,
            algorithms: vec![Algorithm { name: "ecdsa-p256-sha256".into(), not_after_ms: 0 }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn member(id: &str, subsystems: &[&str]) -> Member {
    let subsystem = |id: &&str| Subsystem { id: (*id).into(), name: "Probe".into() };
    Member { id: id.into(), name: "Probe".into(), subsystems: subsystems.iter().map(subsystem).collect() }
}

fn server(id: &str, subsystems: &[&str], address: String) -> SecurityServer {
    let keys = Identities::get().of(id);
    let [authentication, signing] = keys.digests();
    let log = LogKey { origin: Keys::origin(id), public_key: Bytes::copy_from_slice(&keys.log_public_key) };
    SecurityServer {
        id: id.into(),
        address,
        subsystems: subsystems.iter().map(|id| (*id).into()).collect(),
        authentication_keys: vec![authentication],
        signing_keys: vec![signing],
        logs: vec![log],
        suspended: false,
    }
}

fn service(id: &str) -> Service {
    Service {
        id: id.into(),
        title: "Probe".into(),
        kind: ServiceKind::Grpc.into(),
        methods: vec!["/gewerbe.v1.Register/*".into(), "/test.v1.Auskunft/*".into()],
        purposes: vec![OTHER_PURPOSE.into(), PURPOSE.into()],
    }
}

fn rest_service() -> Service {
    Service { kind: ServiceKind::Rest.into(), methods: Vec::new(), ..service(REST_SERVICE) }
}

fn entry(code: &str) -> CatalogueEntry {
    CatalogueEntry {
        code: code.into(),
        text: "Example".into(),
        text_de: "Beispiel".into(),
        citation: "Beispiel, keine Rechtsgrundlage".into(),
    }
}

/// The grant with which every instance begins: the client, the service, all methods, one purpose, one legal basis.
pub fn grant() -> GrantChange {
    GrantChange {
        id: "g1".into(),
        client: CLIENT.into(),
        service: SERVICE.into(),
        method: "/test.v1.Auskunft/*".into(),
        purposes: vec![PURPOSE.into()],
        legal_bases: vec![LEGAL_BASIS.into()],
        in_force: true,
        operator: "probe".into(),
        ..GrantChange::default()
    }
}

/// A grant of endpoints of the REST service.
pub fn rest_grant(id: &str, endpoint: &str) -> GrantChange {
    GrantChange { id: id.into(), service: REST_SERVICE.into(), method: endpoint.into(), ..grant() }
}
