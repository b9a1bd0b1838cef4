//! What a proof tells, for a person: who asked whom for what, when, on which legal basis, and what was answered.

use bytes::Bytes;

use crate::clock::Time;
use crate::digest::Digest;
use crate::global_configuration::CatalogueEntry;
use crate::identifier::{ExchangeId, Method, ServerId, XRoadClientId, XRoadServiceId};
use crate::message::{CallerContext, Direction, Ending};
use crate::schema::transport::RegisterReached;

/// On which of the two sides the log stands from which the proof was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// At the one who asked.
    Client,
    /// At the one who was asked.
    Provider,
}

/// An identifier with the names that the configuration gives to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The identifier.
    pub id: String,
    /// Its name for people: of the subsystem, or the title of the service.
    pub name: String,
    /// The name of the member that it belongs to.
    pub member: String,
}

/// What the file tells of an exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Story {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Who asked.
    pub client: Named,
    /// Who was asked, for which service.
    pub service: Named,
    /// gRPC method; none for REST.
    pub method: Option<Method>,
    /// For which purpose.
    pub purpose: Term,
    /// On which legal basis.
    pub legal_basis: Term,
    /// The route that declared client, service, purpose or legal basis in the caller's place.
    pub route: Option<String>,
    /// The client of an existing X-Road instance for which the client, a bridge, asked; as the bridge declared.
    pub bridged_from: Option<XRoadClientId>,
    /// The service of an existing X-Road instance that answered through the provider, a bridge, or that the bridge's own log
    /// says was to answer; as the bridge declared.
    pub bridged_to: Option<XRoadServiceId>,
    /// Who acted, for which case, as declared.
    pub caller_context: CallerContextStory,
    /// The client's security server.
    pub client_server: ServerId,
    /// The provider's security server.
    pub provider_server: ServerId,
    /// Whose log this proof is from.
    pub side: Side,
    /// The messages of the request, in order.
    pub requests: Vec<MessageStory>,
    /// The messages of the response, in order.
    pub responses: Vec<MessageStory>,
    /// What was asked for, where the content is in the file.
    pub asked: Option<Asked>,
    /// What was answered, where the content is in the file.
    pub answer: Option<Answer>,
    /// Whether the exchange is whole.
    pub completeness: Completeness,
    /// How far each direction had been received, by the receiver's own signed word; absent where the order does not hold.
    pub acknowledged: Option<Acknowledged>,
    /// The record of its end, where it did not end with a complete response.
    pub ended: Option<Ended>,
    /// The record of its contents' erasure.
    pub erased: Option<Erased>,
    /// The provider's grant.
    pub grant: Option<GrantStory>,
    /// Since when at the latest all this stands in the log; absent where checkpoint or timestamp do not hold.
    pub sealed: Option<Sealed>,
    /// The witnesses who cosigned the checkpoint, as the file has them.
    pub witnesses: Vec<WitnessStory>,
    /// Number and digest of each configuration in the file.
    pub configurations: Vec<(u64, Digest)>,
}

/// How many messages of each direction its receiver has named as received, in messages that it signed itself. What was
/// sent after them may have arrived, have been refused, or have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// Messages of the request, named by the provider's security server.
    pub requests: u64,
    /// Messages of the response, named by the client's security server.
    pub responses: u64,
}

/// A purpose or a legal basis, as the catalogue of that time explains it; only its code where it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The code that was signed.
    pub code: String,
    /// In English.
    pub text: String,
    /// In German.
    pub text_de: String,
    /// Where it is laid down.
    pub citation: String,
}

impl Term {
    pub(super) fn new(code: &str, entry: Option<&CatalogueEntry>) -> Self {
        let field = |of: fn(&CatalogueEntry) -> &String| entry.map(of).cloned().unwrap_or_default();
        Self {
            code: code.into(),
            text: field(|entry| &entry.text),
            text_de: field(|entry| &entry.text_de),
            citation: field(|entry| &entry.citation),
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageStory {
    /// Which way it went.
    pub direction: Direction,
    /// Its position in its direction, from 0.
    pub index: u64,
    /// When its sender made it, by its own clock.
    pub created: Time,
    /// When this log recorded it, by its own clock.
    pub logged: Time,
    /// The security server from which it came back after this log had lost it; none if it was recorded at its time.
    pub recovered_from: Option<ServerId>,
    /// Whether more follow.
    pub ending: Ending,
    /// Bytes of body.
    pub length: u64,
    /// What became of its content.
    pub content: ContentStory,
}

/// What became of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentStory {
    /// It is in the file: the body.
    Included(Bytes),
    /// The exporter does not have it: its policy did not keep it, or not any longer, or its log was restored without keys.
    NotKept,
    /// It was erased, and the erasure was recorded.
    Erased,
    /// It is kept, and was left out of this file.
    Withheld,
    /// It is not what was signed, or missing without a reason.
    Mismatch,
}

/// What became of the caller context.
#[derive(Clone, PartialEq, Eq)]
pub enum CallerContextStory {
    /// None was declared.
    NotDeclared,
    /// One was declared; it is not in the file.
    NotIncluded,
    /// Declared, signed, and in the file.
    Included(CallerContext),
}

/// Never printed in passing: whoever shows it, means to.
impl std::fmt::Debug for CallerContextStory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NotDeclared => "NotDeclared",
            Self::NotIncluded => "NotIncluded",
            Self::Included(_) => "Included(..)",
        })
    }
}

/// The head of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// HTTP method.
    pub method: String,
    /// Path, with the query if there was one.
    pub path: String,
}

/// What the response said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub http_status: Option<u32>,
    /// gRPC status code.
    pub grpc_status: Option<u32>,
    /// gRPC status message, as sent (percent-encoded).
    pub grpc_message: Option<String>,
}

/// Whether an exchange is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Request and response are there from the first to the last message.
    Whole,
    /// The response is whole; it came before the request had come to its end, which is not in this file.
    AnsweredEarly {
        /// Messages of the request.
        requests: u64,
        /// Messages of the response.
        responses: u64,
    },
    /// It was broken off after so many messages of the request and of the response.
    BrokenOff {
        /// Messages of the request.
        requests: u64,
        /// Messages of the response.
        responses: u64,
    },
    /// It has no end in this file, and no record of why.
    Open {
        /// Messages of the request.
        requests: u64,
        /// Messages of the response.
        responses: u64,
    },
}

/// The record of an end other than a complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: Time,
    /// `failed`, `aborted` or `unknown`.
    pub outcome: &'static str,
    /// A reason of the table of faults.
    pub reason: String,
    /// Whose side.
    pub side: String,
    /// Whether the register's call had begun.
    pub register_reached: RegisterReached,
    /// Whether that is the word of the provider's side alone, which nobody signed: so it is at the client, where that side
    /// failed and no answer was received.
    pub by_hearsay: bool,
    /// The exchange that the call became, where it was made again elsewhere.
    pub continued_as: Option<ExchangeId>,
}

/// The record of an erasure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// When.
    pub at: Time,
    /// By whom.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// The grant that permitted the exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantStory {
    /// Its name.
    pub id: String,
    /// Whom it is for, as it says.
    pub subject: String,
    /// Who made it.
    pub operator: String,
    /// Who approved it, where the provider's policy demanded a second person.
    pub approver: Option<String>,
    /// When.
    pub at: Time,
    /// When the local group was last changed through which it holds for the client, if it is for one.
    pub group_at: Option<Time>,
    /// Whether it was checked that it covers the HTTP method and path: the content must be in the file for that. Always so
    /// for gRPC.
    pub endpoint_checked: bool,
}

/// The checkpoint and its timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Origin of the log.
    pub origin: String,
    /// Records that the log held.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Digest,
    /// The timestamping authority's time: all this existed then.
    pub not_later_than: Time,
    /// The authority's name in the configuration.
    pub authority: String,
}

/// A witness who cosigned the checkpoint: the log continued all that this witness had seen of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessStory {
    /// Its name in the configuration.
    pub name: String,
    /// The member class of the state in which it stands.
    pub class: String,
    /// Whether that is another state than the recorder's.
    pub foreign: bool,
    /// When, by the witness's clock.
    pub at: Time,
}
