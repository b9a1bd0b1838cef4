//! An act as the registry shows it, and how a person says which one is meant: by what it holds, never by its id alone.

use trave_proto::digest::Digest;
use trave_proto::management::{Act, ActId, EnrolmentKeys};
use trave_proto::schema::management::{ActEntry, SignedAct, act::Change};

use super::AdministratorError;

/// An act as the registry shows it. The act is read and checked; where it stands and who signed is the registry's word,
/// unless [`Administrator::pending`](super::Administrator::pending) gave it: that verifies the applicant.
#[derive(Debug, Clone)]
pub struct ShownAct {
    /// The act.
    pub act: Act,
    /// The act with the signatures it has.
    pub signed: SignedAct,
    /// Where it stands: "requested", "applied", "approved", "in_force", "rejected", "expired".
    pub state: String,
    /// Name of who applied.
    pub applicant: String,
    /// Name of who approved.
    pub approver: String,
    /// The configuration that put it into force; 0 if none did.
    pub configuration_number: u64,
}

impl ShownAct {
    pub(super) fn of(entry: ActEntry) -> Result<Self, AdministratorError> {
        let signed = entry.act.unwrap_or_default();
        Ok(Self {
            act: Act::parse(&signed.act).map_err(AdministratorError::Act)?,
            signed,
            state: printable(&entry.state),
            applicant: printable(&entry.applicant),
            approver: printable(&entry.approver),
            configuration_number: entry.configuration_number,
        })
    }

    /// What must be compared with the security server's display; none if this is no enrolment, or one of malformed
    /// keys.
    pub fn fingerprint(&self) -> Option<String> {
        match self.act.change() {
            Change::EnrolSecurityServer(enrolment) => {
                EnrolmentKeys::of(enrolment).map(|keys| keys.fingerprint())
            }
            _ => None,
        }
    }
}

/// An act by its id and its content: what two people can tell each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActReference {
    /// The id.
    pub id: ActId,
    /// SHA-256 of the act.
    pub digest: Digest,
}

impl From<&Act> for ActReference {
    fn from(act: &Act) -> Self {
        Self { id: act.id(), digest: act.digest() }
    }
}

impl From<ActReference> for ActId {
    fn from(reference: ActReference) -> Self {
        reference.id
    }
}

/// The act that somebody decides on.
#[derive(Debug, Clone)]
pub enum Chosen {
    /// This one, as it was shown: exactly these bytes are signed, and the registry is not asked again.
    Shown(Box<ShownAct>),
    /// The one of this id, if it has this digest.
    Referred(ActReference),
    /// The enrolment of this id. Its fingerprint, which covers all that it enrols, must be given beside it.
    Enrolment(ActId),
}

impl From<&ShownAct> for Chosen {
    fn from(shown: &ShownAct) -> Self {
        Self::Shown(Box::new(shown.clone()))
    }
}

impl From<ActReference> for Chosen {
    fn from(reference: ActReference) -> Self {
        Self::Referred(reference)
    }
}

impl From<ActId> for Chosen {
    fn from(id: ActId) -> Self {
        Self::Enrolment(id)
    }
}

/// An enrolment is signed only with the fingerprint that somebody read from the security server's own display, and a
/// fingerprint is for nothing else.
pub(super) fn check_fingerprint(shown: &ShownAct, given: Option<&str>) -> Result<(), AdministratorError> {
    let id = shown.act.id();
    if !matches!(shown.act.change(), Change::EnrolSecurityServer(_)) {
        return given.map_or(Ok(()), |_| Err(AdministratorError::NoEnrolment(id)));
    }
    let found = shown.fingerprint().ok_or(AdministratorError::MalformedEnrolment(id))?;
    let expected = given.unwrap_or("(not given)").trim();
    let compared = |text: &str| text.replace(' ', "").to_ascii_lowercase();
    if compared(expected) == compared(&found) {
        return Ok(());
    }
    Err(AdministratorError::Fingerprint { expected: expected.into(), found })
}

/// A text of the registry, for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(2_000).collect()
}
