//! How long what the message log holds is kept, as an operator writes it.

use serde::Deserialize;
use trave_host::config::Problems;
use trave_proto::identifier::{ServiceId, SubsystemId};
use trave_proto::message::Code;

use super::Parsed;

/// How long records and contents are kept. Months are those of the calendar, in UTC.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Months for which records of exchanges and refusals, and of reading them, are kept (IDNrG § 9 (3): two years).
    pub records_months: u32,
    /// Months for which records of administration are kept once they are over: grants, erasures, holds.
    pub administration_months: u32,
    /// Days for which contents are kept that are kept at all; as long as their record if absent.
    pub contents_days: Option<u32>,
    /// What is done when another security server tells that contents of exchanges with it were erased there.
    pub erasure_notices: OnNotice,
    /// What is different for some services, purposes or clients: the first rule counts that fits and says something.
    pub rule: Vec<RetentionRule>,
}

/// What is done when another security server tells of an erasure.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNotice {
    /// The operators see it, and decide.
    #[default]
    Show,
    /// The same contents are erased here, unless a hold keeps them.
    CarryOut,
}

/// Another time for some exchanges.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Of this service; of any if absent.
    pub service: Option<Parsed<ServiceId>>,
    /// For this purpose.
    pub purpose: Option<Parsed<Code>>,
    /// Asked by this subsystem.
    pub client: Option<Parsed<SubsystemId>>,
    /// Months for which records are kept.
    pub records_months: Option<u32>,
    /// Days for which contents are kept.
    pub contents_days: Option<u32>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            records_months: 24,
            administration_months: 36,
            contents_days: None,
            erasure_notices: OnNotice::Show,
            rule: Vec::new(),
        }
    }
}

/// Both states compare their logs for 330 days, and no law that we know of asks for less.
const LEAST_MONTHS: u32 = 12;
/// Longer than anybody may keep anything.
const MOST_MONTHS: u32 = 1_200;
const MOST_DAYS: u32 = 36_500;

impl Retention {
    pub(super) fn check(&self, problems: &mut Problems) {
        let months = |key: String, months: Option<u32>, problems: &mut Problems| {
            if months.is_some_and(|months| !(LEAST_MONTHS..=MOST_MONTHS).contains(&months)) {
                problems
                    .add(key, format!("is not between {LEAST_MONTHS} and {MOST_MONTHS} months"))
                    .hint("24 months, as IDNrG § 9 (3) says, or 12, as the once-only technical system asks");
            }
        };
        let days = |key: String, days: Option<u32>, problems: &mut Problems| {
            if days.is_some_and(|days| days == 0 || days > MOST_DAYS) {
                problems
                    .add(key, format!("is not between 1 and {MOST_DAYS} days"))
                    .hint("keep_content = \"none\" keeps no content at all");
            }
        };
        months("retention.records_months".into(), Some(self.records_months), problems);
        months("retention.administration_months".into(), Some(self.administration_months), problems);
        days("retention.contents_days".into(), self.contents_days, problems);
        for (at, rule) in self.rule.iter().enumerate() {
            let key = format!("retention.rule[{at}]");
            if rule.service.is_none() && rule.purpose.is_none() && rule.client.is_none() {
                problems
                    .add(key.clone(), "names neither a service nor a purpose nor a client")
                    .hint("what holds for all stands in [retention] itself");
            }
            if rule.records_months.is_none() && rule.contents_days.is_none() {
                problems.add(key.clone(), "says neither records_months nor contents_days");
            }
            months(format!("{key}.records_months"), rule.records_months, problems);
            days(format!("{key}.contents_days"), rule.contents_days, problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let retention: Retention = toml::from_str(text).unwrap();
        let mut problems = Problems::of(std::path::Path::new("gateway.toml"));
        retention.check(&mut problems);
        problems.iter().map(|problem| problem.key.clone()).collect()
    }

    #[test]
    fn what_cannot_be_is_told() {
        let rule = "[[rule]]\npurpose = \"oots\"\nrecords_months = 12\n";
        assert_eq!(problems(rule), [""; 0]);
        assert_eq!(problems(""), [""; 0]);
        for (text, key) in [
            ("records_months = 11", "retention.records_months"),
            ("administration_months = 1201", "retention.administration_months"),
            ("contents_days = 0", "retention.contents_days"),
            ("[[rule]]\nrecords_months = 12", "retention.rule[0]"),
            ("[[rule]]\npurpose = \"oots\"", "retention.rule[0]"),
            ("[[rule]]\npurpose = \"oots\"\ncontents_days = 0", "retention.rule[0].contents_days"),
        ] {
            assert_eq!(problems(text), [key], "{text}");
        }
        assert!(toml::from_str::<Retention>("record_months = 3").is_err());
    }
}
