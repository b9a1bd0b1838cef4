//! Administrators and acts for this module's tests.

use std::time::Duration;

use ring::signature::EcdsaKeyPair;

use super::act::{Act, ActId, Role};
use crate::clock::Time;
use crate::global_configuration::testing::{administrator, example};
use crate::schema::configuration::GlobalConfiguration;
use crate::schema::management::{SignedAct, act::Change};

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

pub(super) fn signed(act: &Act, applicant: &EcdsaKeyPair, approver: &EcdsaKeyPair) -> SignedAct {
    SignedAct {
        act: act.bytes().clone(),
        applicant: Some(act.sign(Role::Applicant, applicant).unwrap()),
        approver: Some(act.sign(Role::Approver, approver).unwrap()),
    }
}
