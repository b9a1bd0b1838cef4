//! The embedded trust services: certificates for enrolled keys, and their revocation when the configuration no longer
//! lists them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trave_certs::authority::{Addresses, AuthorityError, CertificationAuthority, Reason};
use trave_certs::profile::Profile;
use trave_certs::service::{Keys, ServiceError, Settings, TrustServices};
use trave_certs::timestamping::Terms;
use trave_host::config::{Secret, with_causes};
use trave_host::keys::{KeyError, SigningKey};
use trave_proto::certificate::Certificate;
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::identifier::ServerId;
use trave_proto::schema::management::{CertificatesIssued, EnrolRequest};

use crate::state::Enrolment;

/// Name of the authority in certificates.
fn settings(instance: &str, address: &str) -> Settings {
    Settings {
        name: format!("{instance} Trust Services"),
        addresses: Addresses {
            ocsp: Some(format!("http://{address}/ocsp")),
            revocation_list: Some(format!("http://{address}/crl")),
        },
        // An arc that is set aside for examples (RFC 5612); whoever runs an instance enters their own.
        terms: Terms {
            policy: "1.3.6.1.4.1.32473.1".into(),
            accuracy: Duration::from_secs(1),
            ordering: false,
        },
    }
}

const KEYS: [&str; 3] = ["authority.key.pem", "responder.key.pem", "timestamping.key.pem"];

/// Why the embedded trust services do not begin.
#[derive(Debug, thiserror::Error)]
pub enum TrustServicesError {
    /// A key.
    #[error("a key of the trust services cannot be used")]
    Key(#[source] KeyError),
    /// The services.
    #[error("the trust services cannot begin")]
    Service(#[source] ServiceError),
}

/// Begins the trust services of an instance, reached at `address` (host:port), with new keys in `directory`.
pub(crate) fn create(
    directory: &Path,
    passphrase: &Secret,
    instance: &str,
    address: &str,
    clock: Arc<dyn Clock>,
) -> Result<TrustServices, TrustServicesError> {
    let create =
        |name| SigningKey::create(&directory.join(name), passphrase).map_err(TrustServicesError::Key);
    let keys = keys(create)?;
    TrustServices::create(directory, &settings(instance, address), &keys, clock)
        .map_err(TrustServicesError::Service)
}

/// Opens what [`create`] began.
pub(crate) fn open(
    directory: &Path,
    passphrase: &Secret,
    instance: &str,
    address: &str,
    clock: Arc<dyn Clock>,
) -> Result<TrustServices, TrustServicesError> {
    let open = |name| SigningKey::open(&directory.join(name), passphrase).map_err(TrustServicesError::Key);
    let keys = keys(open)?;
    TrustServices::open(directory, &settings(instance, address), &keys, clock)
        .map_err(TrustServicesError::Service)
}

fn keys<E>(key: impl Fn(&'static str) -> Result<SigningKey, E>) -> Result<Keys, E> {
    let [authority, responder, timestamping] = KEYS;
    Ok(Keys {
        authority: Arc::new(key(authority)?),
        responder: Arc::new(key(responder)?),
        timestamping: Arc::new(key(timestamping)?),
    })
}

/// Certifies the two keys of an enrolment in force.
pub(crate) fn certify(
    authority: &CertificationAuthority,
    server: &ServerId,
    request: &EnrolRequest,
) -> Result<(Vec<Bytes>, Vec<Bytes>), AuthorityError> {
    let (member, server) = (server.member(), server.clone());
    let authentication = Profile::Authentication { member: member.clone(), server: server.clone() };
    let authentication = authority.issue(&authentication, &request.authentication_request)?;
    let signing = authority.issue(&Profile::Signing { member, server }, &request.signing_request)?;
    Ok((authentication.chain, signing.chain))
}

/// Revokes the certificates of an enrolment whose keys the configuration no longer lists.
pub(crate) fn revoke_unlisted(
    authority: &CertificationAuthority,
    configuration: &Configuration,
    enrolment: &Enrolment,
) {
    let Some(certificates) = &enrolment.certificates else { return };
    let server: Option<ServerId> = enrolment.request.security_server.parse().ok();
    let entry = server.and_then(|server| configuration.security_server(&server));
    let CertificatesIssued { authentication_chain, signing_chain, .. } = certificates;
    for (chain, signing) in [(authentication_chain, false), (signing_chain, true)] {
        let Some((key, serial)) = chain.first().and_then(|der| key_and_serial(der)) else { continue };
        let listed = entry.is_some_and(|entry| match signing {
            true => entry.lists_signing_key(&key),
            false => entry.lists_authentication_key(&key),
        });
        if listed {
            continue;
        }
        match authority.revoke(&serial, Reason::CessationOfOperation) {
            Ok(at) => tracing::info!(serial, %at, "certificate revoked: its key is listed no longer"),
            Err(AuthorityError::AlreadyRevoked { .. }) => {}
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(serial, error, "a certificate could not be revoked");
            }
        }
    }
}

fn key_and_serial(der: &[u8]) -> Option<(Digest, String)> {
    let certificate = Certificate::from_der(der).ok()?;
    Some((certificate.spki_digest(), hex::encode(certificate.serial())))
}
