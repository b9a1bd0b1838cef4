//! What the certification authority certifies, and how each kind of certificate looks. The requester decides nothing of it.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyUsagePurpose, SanType,
};
use trave_proto::identifier::{MemberId, ServerId};

use crate::der;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// id-kp-documentSigning (RFC 9336).
const DOCUMENT_SIGNING: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 36];
/// id-ce-extKeyUsage, and id-kp-timeStamping as its content: critical for a timestamping authority (RFC 3161 section 2.3).
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const TIME_STAMPING: &[u8] = &[0x30, 10, 0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, 8];
/// id-pkix-ocsp-nocheck (RFC 6960 section 4.2.2.2.1): a responder's certificate is not itself asked for.
const OCSP_NO_CHECK: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 48, 1, 5];

/// A kind of certificate, with the names that it certifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Profile {
    /// TLS between security servers.
    Authentication {
        /// The member that runs the security server.
        member: MemberId,
        /// The security server.
        server: ServerId,
    },
    /// Messages of a member, signed at a security server.
    Signing {
        /// The member for which it signs.
        member: MemberId,
        /// The security server that holds the key.
        server: ServerId,
    },
    /// A TLS server that is no security server: the registry, trust services.
    TlsServer {
        /// Common name.
        name: String,
        /// Host names.
        hosts: Vec<String>,
        /// Addresses.
        addresses: Vec<IpAddr>,
    },
    /// A person who administers the registry: signs in and signs acts.
    Administrator {
        /// Common name.
        name: String,
    },
    /// A responder that answers for this authority's certificates.
    OcspResponder {
        /// Common name.
        name: String,
    },
    /// A timestamping authority.
    TimestampingAuthority {
        /// Common name.
        name: String,
    },
}

/// A name that cannot stand in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The common name.
    #[error("a common name has 1 to 64 characters, none of them a control character")]
    CommonName,
    /// A host name.
    #[error("\"{0}\" is no host name")]
    Host(String),
    /// The security server belongs to another member, or to another instance.
    #[error("the security server {server} does not belong to {member}")]
    Foreign {
        /// The member.
        member: MemberId,
        /// The security server.
        server: ServerId,
    },
}

impl Profile {
    /// The profile's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Authentication { .. } => "authentication",
            Self::Signing { .. } => "signing",
            Self::TlsServer { .. } => "tls-server",
            Self::Administrator { .. } => "administrator",
            Self::OcspResponder { .. } => "ocsp-responder",
            Self::TimestampingAuthority { .. } => "timestamping-authority",
        }
    }

    /// How long such a certificate is valid unless something else is asked for.
    pub const fn validity(&self) -> Duration {
        let days = match self {
            Self::Authentication { .. } | Self::Signing { .. } => 2 * 365,
            Self::TlsServer { .. } | Self::Administrator { .. } | Self::OcspResponder { .. } => 365,
            // The global configuration names this certificate byte for byte, so it changes rarely.
            Self::TimestampingAuthority { .. } => 10 * 365,
        };
        DAY.saturating_mul(days)
    }

    /// Whether its names can stand in a certificate.
    pub fn check(&self) -> Result<(), ProfileError> {
        self.parameters().map(|_| ())
    }

    /// Everything but serial number, validity, issuer and key.
    pub(crate) fn parameters(&self) -> Result<CertificateParams, ProfileError> {
        use {ExtendedKeyUsagePurpose as Purpose, KeyUsagePurpose as Usage};
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&self.common_name())?;
        params.subject_alt_names = self.alternative_names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![Usage::DigitalSignature];
        match self {
            Self::Authentication { .. } => {
                params.extended_key_usages = vec![Purpose::ClientAuth, Purpose::ServerAuth];
            }
            Self::Signing { .. } => {
                params.key_usages.push(Usage::ContentCommitment);
                params.extended_key_usages = vec![Purpose::Other(DOCUMENT_SIGNING.to_vec())];
            }
            Self::TlsServer { .. } => params.extended_key_usages = vec![Purpose::ServerAuth],
            Self::Administrator { .. } => params.extended_key_usages = vec![Purpose::ClientAuth],
            Self::OcspResponder { .. } => {
                params.extended_key_usages = vec![Purpose::OcspSigning];
                params.custom_extensions.push(CustomExtension::from_oid_content(OCSP_NO_CHECK, vec![5, 0]));
            }
            Self::TimestampingAuthority { .. } => {
                let mut usage = CustomExtension::from_oid_content(EXTENDED_KEY_USAGE, TIME_STAMPING.to_vec());
                usage.set_criticality(true);
                params.custom_extensions.push(usage);
            }
        }
        Ok(params)
    }

    fn common_name(&self) -> String {
        match self {
            Self::Authentication { server, .. } | Self::Signing { server, .. } => short(server),
            Self::TlsServer { name, .. }
            | Self::Administrator { name }
            | Self::OcspResponder { name }
            | Self::TimestampingAuthority { name } => name.clone(),
        }
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, ProfileError> {
        match self {
            Self::Authentication { member, server } if server.member() == *member => names(member, server),
            Self::Signing { member, server } if server.instance() == member.instance() => {
                names(member, server)
            }
            Self::Authentication { member, server } | Self::Signing { member, server } => {
                Err(ProfileError::Foreign { member: member.clone(), server: server.clone() })
            }
            Self::TlsServer { hosts, addresses, .. } => {
                let hosts = hosts.iter().map(|host| host_name(host).map(SanType::DnsName));
                hosts.chain(addresses.iter().map(|one| Ok(SanType::IpAddress(*one)))).collect()
            }
            Self::Administrator { .. } | Self::OcspResponder { .. } | Self::TimestampingAuthority { .. } => {
                Ok(Vec::new())
            }
        }
    }
}

/// Everything but serial number and validity of a certification authority's own certificate. It issues for end entities only.
pub(crate) fn authority(name: &str) -> Result<CertificateParams, ProfileError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// Authority information access (RFC 5280 section 4.2.2.1) with the address of the OCSP responder.
pub(crate) fn ocsp_address(url: &str) -> CustomExtension {
    const AUTHORITY_INFORMATION_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
    const ACCESS_BY_OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];
    const URI: u8 = 0x86;
    let method = der::value(der::OID, &[ACCESS_BY_OCSP]);
    let one = der::value(der::SEQUENCE, &[&method, &der::value(URI, &[url.as_bytes()])]);
    CustomExtension::from_oid_content(AUTHORITY_INFORMATION_ACCESS, der::value(der::SEQUENCE, &[&one]))
}

fn names(member: &MemberId, server: &ServerId) -> Result<Vec<SanType>, ProfileError> {
    let uri = |text: String| {
        Ia5String::try_from(text.clone()).map(SanType::URI).map_err(|_| ProfileError::Host(text))
    };
    Ok(vec![uri(format!("urn:trave:member:{member}"))?, uri(format!("urn:trave:server:{server}"))?])
}

/// For people. A common name has at most 64 characters (RFC 5280, ub-common-name), so a longer identifier keeps its end;
/// what counts is the name in the subject alternative names.
fn short(server: &ServerId) -> String {
    let text = server.as_str();
    match text.len().checked_sub(64) {
        Some(over @ 1..) => text[over..].to_owned(),
        _ => text.to_owned(),
    }
}

fn common_name(name: &str) -> Result<DistinguishedName, ProfileError> {
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(ProfileError::CommonName);
    }
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    Ok(distinguished)
}

/// Letters, digits, hyphens and dots (RFC 1123); no wildcards.
fn host_name(text: &str) -> Result<Ia5String, ProfileError> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host = || ProfileError::Host(text.to_owned());
    if text.len() > 253 || !text.split('.').all(label) {
        return Err(host());
    }
    Ia5String::try_from(text).map_err(|_| host())
}
