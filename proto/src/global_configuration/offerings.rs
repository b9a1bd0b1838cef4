//! What may be asked, for which purposes, and by which rules: services, catalogue, trust services and policy.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::members::{MAX_NAME, Members};
use super::text::{FieldError, identifier, is_code, require, require_ascending, require_text, require_urls};
use super::witnesses::{Deadlines, Witnessing, check_timestamping, check_witnessing};
use crate::clock::Time;
use crate::identifier::{Method, ServiceId};
use crate::schema::configuration as schema;

const MAX_SERVICES: usize = 50_000;
const MAX_METHODS: usize = 256;
const MAX_CATALOGUE: usize = 10_000;
const MAX_CATALOGUE_TEXT: usize = 2_048;
const MAX_AUTHORITIES: usize = 32;
const MAX_CERTIFICATE: usize = 16 * 1024;
const MAX_DELAY_MS: u64 = 30 * 24 * 3_600_000;

/// Signature algorithms that a policy may name.
pub const ALGORITHMS: [&str; 4] = ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519", "rsa-pss-sha256"];

/// A service of the catalogue.
#[derive(Debug, Clone)]
pub struct ServiceEntry {
    /// Its identifier.
    pub id: ServiceId,
    /// Its title, for people.
    pub title: String,
    /// Whether it speaks gRPC; REST otherwise.
    pub is_grpc: bool,
    methods: Vec<String>,
    purposes: Vec<String>,
}

impl ServiceEntry {
    /// Whether the service has this gRPC method. A REST service has none.
    pub fn has_method(&self, method: &Method) -> bool {
        self.is_grpc && self.methods.iter().any(|pattern| method.matches(pattern))
    }

    /// Whether the service may be called for this purpose at all.
    pub fn allows_purpose(&self, code: &str) -> bool {
        self.purposes.binary_search_by(|purpose| purpose.as_str().cmp(code)).is_ok()
    }

    /// The patterns of its methods: `/package.Service/Method`, `/package.Service/*` or `/*`.
    pub fn methods(&self) -> &[String] {
        &self.methods
    }

    /// Codes of the purposes for which it may be called, ascending.
    pub fn purposes(&self) -> &[String] {
        &self.purposes
    }
}

/// A purpose or a legal basis.
#[derive(Debug, Clone)]
pub struct CatalogueEntry {
    /// Its code, as messages carry it.
    pub code: String,
    /// What it means, in English.
    pub text: String,
    /// What it means, in German.
    pub text_de: String,
    /// Where it is laid down.
    pub citation: String,
}

/// A certification authority to which security servers' certificates chain.
#[derive(Debug, Clone)]
pub struct CertificationAuthorityEntry {
    /// Its name, for people.
    pub name: String,
    /// Its certificate, DER (RFC 5280).
    pub certificate: Bytes,
    /// Its OCSP responders (RFC 6960).
    pub ocsp_urls: Vec<String>,
    /// Where it publishes its list of revoked certificates.
    pub crl_urls: Vec<String>,
}

/// A timestamping authority (RFC 3161).
#[derive(Debug, Clone)]
pub struct TimestampingAuthorityEntry {
    /// Its name, for people.
    pub name: String,
    /// The certificate that signs its tokens, DER.
    pub certificate: Bytes,
    /// Where it answers.
    pub url: String,
}

/// Rules that all security servers of the instance share.
#[derive(Debug, Clone)]
pub struct PolicyEntry {
    /// A signed message stands in a checkpoint of its sender's log after this time at the latest.
    pub merge_delay: Duration,
    /// How old an OCSP response may be.
    pub ocsp_max_age: Duration,
    /// Acts need an approver of another member class than the applicant's.
    pub approval_by_other_class: bool,
    /// Who must have cosigned the checkpoints of a log.
    pub witnessing: Witnessing,
    /// What happens while a log that grows has no new timestamp.
    pub timestamping: Deadlines,
    algorithms: Vec<(String, Option<Time>)>,
}

impl PolicyEntry {
    /// Whether signatures by this algorithm, one of [`ALGORITHMS`], count at time `at`.
    pub fn allows_algorithm(&self, name: &str, at: Time) -> bool {
        let in_force = |end: &Option<Time>| end.is_none_or(|end| at <= end);
        self.algorithms.iter().any(|(listed, end)| listed == name && in_force(end))
    }
}

/// Services, purposes and legal bases.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub(super) services: HashMap<ServiceId, ServiceEntry>,
    pub(super) purposes: HashMap<String, CatalogueEntry>,
    pub(super) legal_bases: HashMap<String, CatalogueEntry>,
}

impl Catalogue {
    pub(super) fn check(
        configuration: &schema::GlobalConfiguration,
        members: &Members,
    ) -> Result<Self, FieldError> {
        let purposes = catalogue(&configuration.purposes, "purposes")?;
        let legal_bases = catalogue(&configuration.legal_bases, "legal_bases")?;
        let list = &configuration.services;
        require_ascending(list, MAX_SERVICES, "services", |service| service.id.as_str())?;
        let mut services = HashMap::with_capacity(list.len());
        for (i, service) in list.iter().enumerate() {
            let at = format!("services[{i}]");
            let id: ServiceId = identifier(&service.id, &configuration.instance, || format!("{at}.id"))?;
            let known = members.subsystems.contains_key(&id.subsystem());
            require(known, || format!("{at}.id"), "is of a subsystem that is not registered")?;
            let entry = check_service(service, id.clone(), &purposes, &at)?;
            services.insert(id, entry);
        }
        Ok(Self { services, purposes, legal_bases })
    }
}

fn check_service(
    service: &schema::Service,
    id: ServiceId,
    known_purposes: &HashMap<String, CatalogueEntry>,
    at: &str,
) -> Result<ServiceEntry, FieldError> {
    require_text(&service.title, MAX_NAME, || format!("{at}.title"))?;
    let is_grpc = match service.kind() {
        schema::ServiceKind::Grpc => true,
        schema::ServiceKind::Rest => false,
        schema::ServiceKind::Unspecified => {
            return Err(FieldError::new(format!("{at}.kind"), "is neither gRPC nor REST"));
        }
    };
    let methods = &service.methods;
    require_ascending(methods, MAX_METHODS, &format!("{at}.methods"), String::as_str)?;
    require(is_grpc || methods.is_empty(), || format!("{at}.methods"), "a REST service has no methods")?;
    for (i, method) in methods.iter().enumerate() {
        require(is_method_pattern(method), || format!("{at}.methods[{i}]"), "is not a method pattern")?;
    }
    let purposes = &service.purposes;
    require_ascending(purposes, MAX_CATALOGUE, &format!("{at}.purposes"), String::as_str)?;
    for (i, purpose) in purposes.iter().enumerate() {
        let known = known_purposes.contains_key(purpose);
        require(known, || format!("{at}.purposes[{i}]"), "is not a purpose of the catalogue")?;
    }
    let (title, methods, purposes) = (service.title.clone(), methods.clone(), purposes.clone());
    Ok(ServiceEntry { id, title, is_grpc, methods, purposes })
}

/// A method, `/package.Service/*` or `/*`.
fn is_method_pattern(pattern: &str) -> bool {
    match pattern.strip_suffix("/*") {
        Some("") => true,
        Some(service) => format!("{service}/x").parse::<Method>().is_ok(),
        None => pattern.parse::<Method>().is_ok(),
    }
}

fn catalogue(
    list: &[schema::CatalogueEntry],
    at: &str,
) -> Result<HashMap<String, CatalogueEntry>, FieldError> {
    require_ascending(list, MAX_CATALOGUE, at, |entry| entry.code.as_str())?;
    let mut entries = HashMap::with_capacity(list.len());
    for (i, entry) in list.iter().enumerate() {
        require(is_code(&entry.code), || format!("{at}[{i}].code"), "is not a code")?;
        for (field, text) in
            [("text", &entry.text), ("text_de", &entry.text_de), ("citation", &entry.citation)]
        {
            require_text(text, MAX_CATALOGUE_TEXT, || format!("{at}[{i}].{field}"))?;
        }
        let schema::CatalogueEntry { code, text, text_de, citation } = entry.clone();
        entries.insert(code.clone(), CatalogueEntry { code, text, text_de, citation });
    }
    Ok(entries)
}

pub(super) fn check_certification_authorities(
    list: &[schema::CertificationAuthority],
) -> Result<Vec<CertificationAuthorityEntry>, FieldError> {
    let at = "trust_services.certification_authorities";
    require_ascending(list, MAX_AUTHORITIES, at, |authority| authority.name.as_str())?;
    let check = |(i, authority): (usize, &schema::CertificationAuthority)| {
        let at = format!("{at}[{i}]");
        require_text(&authority.name, MAX_NAME, || format!("{at}.name"))?;
        let is_ca = certificate(&authority.certificate, &at)?.is_ca();
        require(is_ca, || format!("{at}.certificate"), "may not issue certificates")?;
        require_urls(&authority.ocsp_urls, &format!("{at}.ocsp_urls"))?;
        require_urls(&authority.crl_urls, &format!("{at}.crl_urls"))?;
        let schema::CertificationAuthority { name, certificate, ocsp_urls, crl_urls } = authority.clone();
        Ok(CertificationAuthorityEntry { name, certificate, ocsp_urls, crl_urls })
    };
    list.iter().enumerate().map(check).collect()
}

pub(super) fn check_timestamping_authorities(
    list: &[schema::TimestampingAuthority],
) -> Result<Vec<TimestampingAuthorityEntry>, FieldError> {
    let at = "trust_services.timestamping_authorities";
    require_ascending(list, MAX_AUTHORITIES, at, |authority| authority.name.as_str())?;
    let check = |(i, authority): (usize, &schema::TimestampingAuthority)| {
        let at = format!("{at}[{i}]");
        require_text(&authority.name, MAX_NAME, || format!("{at}.name"))?;
        certificate(&authority.certificate, &at)?;
        require_urls(std::slice::from_ref(&authority.url), &format!("{at}.url"))?;
        let schema::TimestampingAuthority { name, certificate, url } = authority.clone();
        Ok(TimestampingAuthorityEntry { name, certificate, url })
    };
    list.iter().enumerate().map(check).collect()
}

fn certificate<'c>(der: &'c [u8], at: &str) -> Result<X509Certificate<'c>, FieldError> {
    let refused = || FieldError::new(format!("{at}.certificate"), "is not one certificate in DER");
    if der.len() > MAX_CERTIFICATE {
        return Err(refused());
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(refused()),
    }
}

pub(super) fn check_policy(policy: &schema::Policy) -> Result<PolicyEntry, FieldError> {
    for (field, value) in
        [("merge_delay_ms", policy.merge_delay_ms), ("ocsp_max_age_ms", policy.ocsp_max_age_ms)]
    {
        let holds = (1..=MAX_DELAY_MS).contains(&value);
        require(holds, || format!("policy.{field}"), "is not 1 millisecond to 30 days")?;
    }
    let list = &policy.algorithms;
    require_ascending(list, ALGORITHMS.len(), "policy.algorithms", |algorithm| algorithm.name.as_str())?;
    require(!list.is_empty(), || "policy.algorithms".into(), "names none")?;
    let mut algorithms = Vec::with_capacity(list.len());
    for (i, algorithm) in list.iter().enumerate() {
        let known = ALGORITHMS.contains(&algorithm.name.as_str()) && algorithm.not_after_ms >= 0;
        require(known, || format!("policy.algorithms[{i}]"), "is not a signature algorithm known here")?;
        let end = (algorithm.not_after_ms != 0).then(|| Time::from_millis(algorithm.not_after_ms));
        algorithms.push((algorithm.name.clone(), end));
    }
    Ok(PolicyEntry {
        merge_delay: Duration::from_millis(policy.merge_delay_ms),
        ocsp_max_age: Duration::from_millis(policy.ocsp_max_age_ms),
        approval_by_other_class: policy.approval_by_other_class,
        witnessing: check_witnessing(policy.witnessing.as_ref())?,
        timestamping: check_timestamping(policy.timestamping.as_ref())?,
        algorithms,
    })
}
