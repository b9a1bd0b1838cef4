//! Enrolment: a security server uses its one-time token, and two administrators decide on the keys that it shows.

use std::time::Duration;

use trave_proto::clock::Time;
use trave_proto::digest::Digest;
use trave_proto::identifier::ServerId;
use trave_proto::management::{
    Act, ActId, EnrolmentKeys, EnrolmentToken, Secret, rehearse, verify_enrolment_mac, verify_status_mac,
};
use trave_proto::schema::management::{
    EnrolRequest, EnrolResponse, EnrolmentRequested, GetEnrolmentRequest, GetEnrolmentResponse, TokenIssued,
    act::Change, registry_event::Event,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

use super::acts::stage_name;
use super::{Registration, RegistrationError, random};
use crate::state::{Stage, State, TokenRecord};

const MAX_OPEN_TOKENS: usize = 1_000;
const MAX_TOKEN_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
const MIN_TOKEN_LIFETIME: Duration = Duration::from_secs(60);
const MAX_REQUEST: usize = 8 * 1024;
/// How long administrators have to decide on an enrolment.
const DECISION: Duration = Duration::from_secs(14 * 24 * 3600);
const TOKEN_SECRET: &[u8] = b"trave enrolment token secret v1\n";

impl Registration {
    /// A token for a registered security server, on behalf of the administrator with the key `who`.
    pub(crate) async fn create_token(
        &self,
        who: &Digest,
        server: &str,
        lifetime: Duration,
    ) -> Result<Zeroizing<String>, RegistrationError> {
        let mut state = self.store.lock().await;
        let latest = self.latest()?;
        let administrator = Self::administrator(&latest, who)?;
        let server: ServerId = server
            .parse()
            .map_err(|_| RegistrationError::Malformed("this is no security server's identifier"))?;
        if latest.configuration.security_server(&server).is_none() {
            return Err(RegistrationError::UnknownServer(server.to_string()));
        }
        if !(MIN_TOKEN_LIFETIME..=MAX_TOKEN_LIFETIME).contains(&lifetime) {
            return Err(RegistrationError::Malformed("a token lives for one minute to seven days"));
        }
        let now = self.clock.now();
        if state.open_tokens(now) >= MAX_OPEN_TOKENS {
            return Err(RegistrationError::TooMany("tokens"));
        }
        let id = random::<16>()?;
        let expires = now.plus(lifetime);
        let token = EnrolmentToken {
            registry: self.public_address.clone(),
            registry_key: self.identity_key,
            anchor: Digest::of(&self.anchor),
            secret: self.secret(&hex::encode(id), server.as_str(), expires),
            server,
            id,
            expires,
        };
        let text =
            token.format().ok_or(RegistrationError::Malformed("the registry's address is too long"))?;
        let issued = TokenIssued {
            token_id: token.id_text(),
            security_server: token.server.to_string(),
            expires_ms: expires.as_millis(),
            administrator: administrator.name,
        };
        self.store
            .record(&mut state, Event::TokenIssued(issued))
            .await
            .map_err(RegistrationError::Journal)?;
        Ok(text)
    }

    /// Takes in the keys of a security server that holds a token.
    pub(crate) async fn enrol(&self, request: EnrolRequest) -> Result<EnrolResponse, RegistrationError> {
        let mut state = self.store.lock().await;
        let latest = self.latest()?;
        let now = self.clock.now();
        let token = self.token(&state, &request)?;
        if let Some(id) = token.used {
            return repeated(&state, id, &request);
        }
        if now > token.expires {
            return Err(RegistrationError::TokenExpired);
        }
        let keys = requested_keys(&request)?;
        let change = Change::EnrolSecurityServer(keys.to_change());
        let id = ActId::from_bytes(random()?);
        let act = Act::new(latest.configuration.instance(), change, id, now, DECISION)
            .map_err(RegistrationError::Act)?;
        rehearse(&latest.decoded, &[&act]).map_err(RegistrationError::Follow)?;
        let asked = EnrolmentRequested { request: Some(request), act: act.bytes().clone() };
        self.store
            .record(&mut state, Event::EnrolmentRequested(asked))
            .await
            .map_err(RegistrationError::Journal)?;
        tracing::info!(server = keys.server, enrolment = %id, "a security server asks to enrol");
        Ok(EnrolResponse { enrolment_id: id.to_bytes(), fingerprint: keys.fingerprint() })
    }

    /// How an enrolment stands; its certificates once it is in force.
    pub(crate) async fn enrolment(
        &self,
        request: &GetEnrolmentRequest,
    ) -> Result<GetEnrolmentResponse, RegistrationError> {
        let state = self.store.lock().await;
        let latest = self.latest()?;
        let id = ActId::from_slice(&request.enrolment_id).ok_or(RegistrationError::Token)?;
        let (record, enrolment) = state.act(&id).zip(state.enrolment(&id)).ok_or(RegistrationError::Token)?;
        let token = state.token(&enrolment.request.token_id).ok_or(RegistrationError::Token)?;
        let secret = self.secret(&enrolment.request.token_id, &token.server, token.expires);
        if !verify_status_mac(&secret, &request.enrolment_id, &request.mac) {
            return Err(RegistrationError::Token);
        }
        let stage = stage_name(record, record.is_pending(self.clock.now()));
        let certified = enrolment.certificates.clone();
        // In force means: with all that the server needs.
        let (Stage::InForce(_), Some(certificates)) = (&record.stage, certified) else {
            let state = if stage == "in_force" { "approved" } else { stage };
            return Ok(GetEnrolmentResponse { state: state.into(), ..Default::default() });
        };
        Ok(GetEnrolmentResponse {
            state: stage.into(),
            authentication_chain: certificates.authentication_chain,
            signing_chain: certificates.signing_chain,
            configuration: Some(latest.configuration.signed().clone()),
            anchor: self.anchor.clone(),
        })
    }

    /// The token of a request that is sealed with its secret.
    fn token<'s>(
        &self,
        state: &'s State,
        request: &EnrolRequest,
    ) -> Result<&'s TokenRecord, RegistrationError> {
        let bounded = request.authentication_request.len() <= MAX_REQUEST
            && request.signing_request.len() <= MAX_REQUEST;
        if !bounded {
            return Err(RegistrationError::Malformed("a certificate request is longer than 8 KiB"));
        }
        let token = state.token(&request.token_id).ok_or(RegistrationError::Token)?;
        let secret = self.secret(&request.token_id, &token.server, token.expires);
        if token.server != request.security_server || !verify_enrolment_mac(&secret, request) {
            return Err(RegistrationError::Token);
        }
        Ok(token)
    }

    /// The secret of a token is made from the token key each time, so that no list of secrets is kept. An Ed25519
    /// signature (RFC 8032) is the same each time and cannot be foreseen without the key.
    fn secret(&self, id: &str, server: &str, expires: Time) -> Secret {
        let (id, server) = (Digest::of(id.as_bytes()), Digest::of(server.as_bytes()));
        let expires = expires.as_millis().to_be_bytes();
        let content = [TOKEN_SECRET, id.as_bytes(), server.as_bytes(), &expires].concat();
        let signature = Zeroizing::new(self.token_key.sign(&content));
        Secret::from_bytes(*Digest::of(&*signature).as_bytes())
    }
}

/// The answer was lost, and the same request comes again: the same answer. Anything else means that somebody has the
/// token who should not.
fn repeated(state: &State, id: ActId, request: &EnrolRequest) -> Result<EnrolResponse, RegistrationError> {
    let known = state.enrolment(&id).is_some_and(|enrolment| enrolment.request == *request);
    if !known {
        tracing::warn!(
            server = request.security_server,
            "an enrolment token was used twice, for different keys"
        );
        return Err(RegistrationError::TokenUsed);
    }
    let keys = requested_keys(request)?;
    Ok(EnrolResponse { enrolment_id: id.to_bytes(), fingerprint: keys.fingerprint() })
}

/// The keys of both certificate requests, whose holder signed each, and of the log.
fn requested_keys(request: &EnrolRequest) -> Result<EnrolmentKeys, RegistrationError> {
    let log = request.log.as_ref();
    let log = log.ok_or(RegistrationError::Malformed("the key of the message log is missing"))?;
    let log_key: [u8; 32] = log.public_key.as_ref().try_into().map_err(|_| {
        RegistrationError::Malformed("the log's key is not an Ed25519 public key of 32 bytes")
    })?;
    let keys = EnrolmentKeys {
        server: request.security_server.clone(),
        authentication_key: requested_key(&request.authentication_request)?,
        signing_key: requested_key(&request.signing_request)?,
        log_origin: log.origin.clone(),
        log_key,
    };
    if keys.authentication_key == keys.signing_key {
        return Err(RegistrationError::Malformed("authentication and signing need a key each"));
    }
    Ok(keys)
}

/// SHA-256 of the SubjectPublicKeyInfo of a request (PKCS#10, RFC 2986) that its key's holder signed.
fn requested_key(der: &[u8]) -> Result<Digest, RegistrationError> {
    let malformed =
        RegistrationError::Malformed("a certificate request is not PKCS#10 in DER, signed by its key");
    match X509CertificationRequest::from_der(der) {
        Ok(([], request)) if request.verify_signature().is_ok() => {
            Ok(Digest::of(request.certification_request_info.subject_pki.raw))
        }
        _ => Err(malformed),
    }
}
