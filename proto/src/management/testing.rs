//! Administrators and acts for this module's tests.

use std::time::Duration;

use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair};

use super::act::{Act, ActId, Role};
use crate::clock::Time;
use crate::global_configuration::testing::{administrator, example};
use crate::schema::configuration::GlobalConfiguration;
use crate::schema::management::{ActSignature, SignedAct, act::Change};

/// Three administrators, two of one state, and the configuration that lists them.
pub(super) struct Instance {
    pub(super) frauke_sh: EcdsaKeyPair,
    pub(super) hinnerk_sh: EcdsaKeyPair,
    pub(super) uwe_mv: EcdsaKeyPair,
    pub(super) configuration: GlobalConfiguration,
}

impl Instance {
    pub(super) fn new() -> Self {
        let (frauke_sh, frauke) = administrator("Frauke", "SH");
        let (hinnerk_sh, hinnerk) = administrator("Hinnerk", "SH");
        let (uwe_mv, uwe) = administrator("Uwe", "MV");
        let configuration = GlobalConfiguration { administrators: vec![frauke, hinnerk, uwe], ..example() };
        Self { frauke_sh, hinnerk_sh, uwe_mv, configuration }
    }

    pub(super) fn issued(&self) -> Time {
        Time::from_millis(self.configuration.issued_ms)
    }

    /// An act, made when the configuration was issued, for an hour.
    pub(super) fn act(&self, id: u8, change: Change) -> Act {
        let id = ActId::from_bytes([id; 16]);
        Act::new("NORD", change, id, self.issued(), Duration::from_secs(3600)).unwrap()
    }

    /// Applied for by Frauke (SH), approved by Uwe (MV).
    pub(super) fn approved(&self, id: u8, change: Change) -> SignedAct {
        signed(&self.act(id, change), &self.frauke_sh, &self.uwe_mv)
    }
}

/// An administrator's signature.
pub(super) fn sign(act: &Act, role: Role, key: &EcdsaKeyPair) -> ActSignature {
    let prefix = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
    let spki = [&prefix, key.public_key().as_ref()].concat();
    let random = SystemRandom::new();
    act.sign(role, &spki, |content| key.sign(&random, content).map(|value| value.as_ref().to_vec())).unwrap()
}

pub(super) fn signed(act: &Act, applicant: &EcdsaKeyPair, approver: &EcdsaKeyPair) -> SignedAct {
    SignedAct {
        act: act.bytes().clone(),
        applicant: Some(sign(act, Role::Applicant, applicant)),
        approver: Some(sign(act, Role::Approver, approver)),
    }
}
