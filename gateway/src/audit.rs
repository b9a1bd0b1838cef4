//! What auditors may see of the message log, and how their questions are asked of it: of all its generations.

mod question;
mod records;

use trave_proto::identifier::MemberId;
use trave_proto::search::{Key, Term, Topic};

pub(crate) use question::{Hit, Question, counted_by};
pub(crate) use records::{Records, SearchedLog, what_is_damaged};

/// Most entries of a page.
pub(crate) const MAX_PAGE: u32 = 500;
/// Entries of a page where nothing is said.
pub(crate) const PAGE: u32 = 50;

/// What an auditor may see: exchanges whose client or service belongs to one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scope {
    /// INSTANCE/CLASS: all members of a class.
    pub(crate) classes: Vec<String>,
    pub(crate) members: Vec<MemberId>,
}

impl Scope {
    /// By what an exchange in scope is found.
    fn terms(&self) -> Vec<Term> {
        let of = |keys: [Key; 2], value: &str| keys.map(|key| Term::new(key, value));
        let classes = self.classes.iter().flat_map(|it| of([Key::ClientClass, Key::ServiceClass], it));
        let members =
            self.members.iter().flat_map(|it| of([Key::ClientMember, Key::ServiceMember], it.as_str()));
        classes.chain(members).collect()
    }

    /// What both see.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let has = |scope: &Self, member: &MemberId| {
            let class = member.as_str().rsplit_once('/').map_or("", |(class, _)| class);
            scope.members.contains(member) || scope.classes.iter().any(|it| it == class)
        };
        let classes = self.classes.iter().filter(|class| other.classes.contains(class)).cloned().collect();
        let mut members: Vec<_> = self.members.iter().filter(|member| has(other, member)).cloned().collect();
        let others = other.members.iter().filter(|member| has(self, member) && !members.contains(member));
        let others: Vec<_> = others.cloned().collect();
        members.extend(others);
        Self { classes, members }
    }

    /// Whether an exchange about this is in scope.
    pub(crate) fn sees(&self, topic: &Topic) -> bool {
        let scope = self.terms();
        topic.terms().any(|term| scope.contains(&term))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(client: &str, service: &str) -> Topic {
        Topic { client: client.into(), service: service.into(), ..Topic::default() }
    }

    #[test]
    fn a_scope_sees_what_its_classes_and_members_ask_or_are_asked() {
        let class = Scope { classes: vec!["NORD/SH".into()], members: vec![] };
        let member = Scope { classes: vec![], members: vec!["NORD/MV/register".parse().unwrap()] };
        for (client, service, by_class, by_member) in [
            ("NORD/SH/luebeck/amt", "NORD/MV/register/fach/a", true, true),
            ("NORD/MV/wismar/amt", "NORD/SH/kiel/fach/a", true, false),
            ("NORD/MV/wismar/amt", "NORD/MV/register/fach/a", false, true),
            ("NORD/MV/wismar/amt", "NORD/MV/register-2/fach/a", false, false),
            ("NORD/SHX/wismar/amt", "NORD/MV/wismar/fach/a", false, false),
            ("", "", false, false),
        ] {
            let topic = topic(client, service);
            assert_eq!((class.sees(&topic), member.sees(&topic)), (by_class, by_member), "{topic:?}");
            assert!(!Scope::default().sees(&topic), "no scope sees nothing");
        }
    }

    #[test]
    fn two_scopes_see_together_what_each_sees() {
        let of = |classes: &[&str], members: &[&str]| Scope {
            classes: classes.iter().map(|&class| class.into()).collect(),
            members: members.iter().map(|member| member.parse().unwrap()).collect(),
        };
        let scopes = [
            of(&["NORD/SH"], &[]),
            of(&["NORD/SH", "NORD/MV"], &[]),
            of(&["NORD/MV"], &["NORD/SH/kiel"]),
            of(&[], &["NORD/SH/kiel", "NORD/MV/wismar"]),
            of(&[], &["NORD/SH/luebeck"]),
            of(&[], &[]),
        ];
        let members =
            ["NORD/SH/kiel", "NORD/SH/luebeck", "NORD/MV/wismar", "NORD/MV/rostock", "NORD/HH/hamburg"];
        for (one, other) in scopes.iter().flat_map(|one| scopes.iter().map(move |other| (one, other))) {
            for member in members {
                let topic = topic(&format!("{member}/amt"), "");
                let both = one.sees(&topic) && other.sees(&topic);
                assert_eq!(one.and(other).sees(&topic), both, "{one:?} {other:?} {member}");
            }
        }
    }
}
