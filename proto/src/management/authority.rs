//! Who may change the registry's state: two administrators of the configuration before, never one alone.

use std::collections::HashMap;

use super::act::{Act, ActError, Role};
use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::{AdministratorEntry, Contents, FieldError};
use crate::schema::configuration::GlobalConfiguration;
use crate::schema::management::{ActSignature, SignedAct};

/// The administrators and rules of one configuration, by which acts upon it are judged.
#[derive(Debug)]
pub struct Authority {
    instance: String,
    approval_by_other_class: bool,
    administrators: HashMap<Digest, AdministratorEntry>,
}

impl Authority {
    /// The administrators of `configuration`, whose contents are checked.
    pub fn of(configuration: &GlobalConfiguration) -> Result<Self, FieldError> {
        let contents = Contents::check(configuration)?;
        Ok(Self {
            instance: configuration.instance.clone(),
            approval_by_other_class: contents.policy.approval_by_other_class,
            administrators: contents.administrators,
        })
    }

    /// The administrator with this key, given as SHA-256 of its SubjectPublicKeyInfo.
    pub fn administrator(&self, key: &Digest) -> Option<&AdministratorEntry> {
        self.administrators.get(key)
    }

    /// Requires that a listed administrator applied for `act`, and that it has not expired at `now`.
    pub fn verify_application(
        &self,
        act: &Act,
        signature: Option<&ActSignature>,
        now: Time,
    ) -> Result<&AdministratorEntry, ActError> {
        if act.instance() != self.instance {
            let (expected, found) = (self.instance.clone(), act.instance().to_owned());
            return Err(ActError::Instance { expected, found });
        }
        if now > act.expires() {
            return Err(ActError::Expired { id: act.id(), expired: act.expires() });
        }
        self.verify_signature(act, Role::Applicant, signature)
    }

    /// Requires that two listed administrators, different persons and, where the policy says so, of different classes,
    /// applied for and approved the act, and that it has not expired at `now`. Answers the act, applicant, approver.
    pub fn verify(
        &self,
        signed: &SignedAct,
        now: Time,
    ) -> Result<(Act, &AdministratorEntry, &AdministratorEntry), ActError> {
        let act = Act::parse(&signed.act)?;
        let applicant = self.verify_application(&act, signed.applicant.as_ref(), now)?;
        let approver = self.verify_signature(&act, Role::Approver, signed.approver.as_ref())?;
        if applicant.name == approver.name || applicant.key == approver.key {
            return Err(ActError::SamePerson { name: approver.name.clone() });
        }
        if self.approval_by_other_class && applicant.class == approver.class {
            return Err(ActError::SameClass { class: approver.class.clone() });
        }
        Ok((act, applicant, approver))
    }

    fn verify_signature(
        &self,
        act: &Act,
        role: Role,
        signature: Option<&ActSignature>,
    ) -> Result<&AdministratorEntry, ActError> {
        let listed = signature.and_then(|signature| {
            let key = Digest::from_slice(&signature.key)?;
            Some((self.administrators.get(&key)?, signature))
        });
        let (administrator, signature) = listed.ok_or(ActError::Unlisted { role })?;
        if !administrator.signed(&act.signed_bytes(role), &signature.value) {
            return Err(ActError::Signature { role, name: administrator.name.clone() });
        }
        Ok(administrator)
    }
}
