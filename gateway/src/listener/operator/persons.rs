//! Who is at the operator's door, as the system tells it, and whose word is enough to change who may call what.

use std::sync::Arc;

use tonic::{Request, Status};
use trave_host::files::user_id;
use trave_host::listen::{Connection, Peer};

use super::words;
use crate::config::{Approval, Config};

/// Whoever asks for a change.
#[derive(Debug)]
pub(super) struct Person {
    /// The number that the system gives to this user.
    pub(super) user: u32,
    /// The number, and the name that the program gives, for the record.
    pub(super) name: String,
}

/// How changes of access come into force.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    approval: Approval,
    users: Arc<[u32]>,
}

impl Policy {
    /// As the configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        let mut users = config.operator_users().to_vec();
        let all = users.len();
        users.retain(|user| *user != user_id());
        if users.len() < all {
            tracing::warn!(
                "operator.users names the server's own user, who could be anybody and approves nothing"
            );
        }
        Self { approval: config.access.approval, users: users.into() }
    }

    /// Whether a second person must approve.
    pub(super) fn two_persons(&self) -> bool {
        self.approval == Approval::TwoPersons
    }

    /// Whoever may apply and approve. Where two persons must, those alone who are known to be persons: an account of the
    /// server's own, or root, could be anybody.
    pub(super) fn person<T>(&self, request: &Request<T>, declared: &str) -> Result<Person, Status> {
        let person = person(request, declared)?;
        if self.two_persons() && !self.users.contains(&person.user) {
            let hint = "hint: with two_persons, only the users of operator.users apply and approve";
            let why = format!("{} is none of them\n{hint}", person.name);
            return Err(Status::permission_denied(why));
        }
        Ok(person)
    }
}

impl Policy {
    /// Whether `user` may apply and approve now.
    pub(super) fn counts(&self, user: u32) -> bool {
        !self.two_persons() || self.users.contains(&user)
    }
}

/// Who is at the other end: the number that the system tells, and the name that the program gives, if it gives one.
pub(super) fn person<T>(request: &Request<T>, declared: &str) -> Result<Person, Status> {
    let connection = request.extensions().get::<Connection>();
    let Some(peer @ Peer::Unix(user)) = connection.map(|connection| connection.peer) else {
        return Err(Status::internal("who asks is not known"));
    };
    let name = if declared.is_empty() {
        peer.to_string()
    } else {
        format!("{peer} ({})", words("the name", declared)?)
    };
    Ok(Person { user, name })
}
