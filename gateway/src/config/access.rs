//! Who comes in at the operator's door, and how it is decided who may call.

use std::collections::BTreeSet;

use serde::Deserialize;
use trave_host::config::{FilePath, Problems};

/// The operator door: a Unix socket that its owner alone can open.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Operator {
    /// Path of the socket; `operator.sock` in the data directory if absent.
    pub(super) socket: Option<FilePath>,
    /// Further users of this machine who may come in, by the numbers that the system gives them. The socket then stands in
    /// a directory that they can enter and the server's user alone can write to.
    #[serde(default)]
    pub(super) users: Vec<u32>,
}

/// How it is decided who may call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Who must agree to a grant, or to a new member of a local group. Withdrawing needs one person always.
    #[serde(default)]
    pub approval: Approval,
}

/// How many persons it takes to grant something.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// One: a grant is in force at once.
    #[default]
    One,
    /// Two of `operator.users`: one applies, another approves.
    TwoPersons,
}

impl Operator {
    pub(super) fn check(&self, approval: Approval, problems: &mut Problems) {
        let key = "operator.users";
        let others: BTreeSet<_> = self.users.iter().collect();
        if others.len() != self.users.len() || others.contains(&0) {
            problems
                .add(key, "names a user twice, or root")
                .hint("each person has an account; root comes in anyway, and is nobody in particular");
        }
        if !others.is_empty() && self.socket.is_none() {
            problems
                .add("operator.socket", "is absent, and the data directory is closed to other users")
                .hint("socket = \"/run/trave/operator.sock\"");
        }
        if approval == Approval::TwoPersons && others.len() < 2 {
            problems.add(key, "are fewer than two, and access.approval demands two persons");
        }
    }
}
