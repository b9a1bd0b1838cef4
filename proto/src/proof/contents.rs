//! What was said: the contents in the file are those that were signed, and what is missing is missing for a reason.

use prost::Message;

use super::Proof;
use super::reading::{Logged, Reading};
use super::report::{Failure, Found};
use super::story::{Answer, Asked, CallerContextStory, ContentStory};
use crate::encoding::decode_canonical;
use crate::message::{CallerContext, Content, Direction, Salt, commit_to_caller_context};
use crate::schema::message as schema;
use crate::schema::proof::ContentState;

/// What became of the content of each message; a MISMATCH, and an erasure without content to erase, is refused.
pub(super) fn check(reading: &Reading<'_>) -> Found<()> {
    let mut counts = [0_usize; 4];
    for message in &reading.messages {
        let at = match state(message, reading)? {
            ContentStory::Included(_) => 0,
            ContentStory::NotKept => 1,
            ContentStory::Erased => 2,
            ContentStory::Withheld | ContentStory::Mismatch => 3,
        };
        counts[at] += 1;
    }
    let [included, not_kept, erased, withheld] = counts;
    if reading.erasure.is_some() && erased == 0 {
        return Err(Failure::fails("the file records an erasure, and no content is missing because of it"));
    }
    Ok(((), format!("{included} included, {not_kept} not kept, {erased} erased, {withheld} withheld")))
}

/// A message of a proof, with its content as far as it is there and is the one that was signed.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Which way it went.
    pub direction: Direction,
    /// Its position in its direction, from 0.
    pub index: u64,
    /// What became of its content.
    pub state: ContentStory,
    /// The content itself, where the state says that it is included.
    pub content: Option<Content>,
}

/// The messages of a proof in the order of the log; none if the proof is not even readable as a whole. What holds of them,
/// [`verify`](super::verify) says.
pub fn said(proof: &Proof) -> Option<Vec<Said>> {
    let (reading, _) = Reading::of(proof).ok()?;
    let said = reading.messages.iter().map(|message| {
        let state = state(message, &reading).unwrap_or(ContentStory::Mismatch);
        let content = content_of(message).filter(|_| matches!(state, ContentStory::Included(_)));
        Said { direction: message.manifest.direction, index: message.manifest.index, state, content }
    });
    Some(said.collect())
}

/// What became of one content.
pub(super) fn state(message: &Logged<'_>, reading: &Reading<'_>) -> Result<ContentStory, Failure> {
    let record = message.record;
    let refused = |why: &str| Failure::fails(format!("MISMATCH: {}: {why}", message.label()));
    let state = match ContentState::try_from(record.content_state) {
        Ok(ContentState::Included) => return included(message),
        Ok(ContentState::NotKept) => ContentStory::NotKept,
        Ok(ContentState::Withheld) => ContentStory::Withheld,
        Ok(ContentState::Erased) => match &reading.erasure {
            Some(erasure) if erasure.index > record.index => ContentStory::Erased,
            _ => return Err(refused("the content is missing, and no later record says that it was erased")),
        },
        _ => return Err(refused("the file does not say what became of the content")),
    };
    if record.content.is_some() || !record.content_salt.is_empty() {
        return Err(refused("the file holds a content and says that it does not"));
    }
    if state == ContentStory::Erased && record.caller_context.is_some() {
        return Err(refused("the file holds a caller context that was erased"));
    }
    Ok(state)
}

fn included(message: &Logged<'_>) -> Result<ContentStory, Failure> {
    let refused = |why: &str| Failure::fails(format!("MISMATCH: {}: {why}", message.label()));
    let content = content_of(message).ok_or_else(|| refused("the content is missing"))?;
    content.check().map_err(|error| refused(&error.to_string()))?;
    let salt = Salt::from_slice(&message.record.content_salt).map_err(|error| refused(&error.to_string()))?;
    let manifest = &message.manifest;
    if content.commit(&salt) != manifest.content_commitment
        || content.body.len() as u64 != manifest.content_length
    {
        return Err(refused("the content is not the one that was signed"));
    }
    Ok(ContentStory::Included(content.body))
}

fn content_of(message: &Logged<'_>) -> Option<Content> {
    let schema::Content { head, body, trailers } = message.record.content.clone()?;
    Some(Content { head, body, trailers })
}

/// The caller context in the file is the one that the first message of the request commits to.
pub(super) fn caller_context(reading: &Reading<'_>) -> Found<CallerContextStory> {
    let mut story = CallerContextStory::NotDeclared;
    for message in &reading.messages {
        let refused = |why: &str| Failure::fails(format!("MISMATCH: {}: {why}", message.label()));
        let record = message.record;
        let commitment = message.manifest.caller_context_commitment;
        match (&record.caller_context, commitment) {
            (None, _) if !record.caller_context_salt.is_empty() => {
                return Err(refused("a salt without a caller context"));
            }
            (None, None) => {}
            (None, Some(_)) => story = CallerContextStory::NotIncluded,
            (Some(_), None) => return Err(refused("the message has no caller context")),
            (Some(encoded), Some(commitment)) => {
                let salt = Salt::from_slice(&record.caller_context_salt);
                let salt = salt.map_err(|error| refused(&error.to_string()))?;
                if commit_to_caller_context(encoded, &salt) != commitment {
                    return Err(refused("the caller context is not the one that was signed"));
                }
                let read = CallerContext::decode(encoded).map_err(|error| refused(&error.to_string()))?;
                story = CallerContextStory::Included(read);
            }
        }
    }
    let detail = match story {
        CallerContextStory::NotDeclared => "none was declared",
        CallerContextStory::NotIncluded => "declared, not in the file",
        CallerContextStory::Included(_) => "in the file",
    };
    Ok((story, detail.into()))
}

/// The head of a message of the request, if its content is there and was signed; else none. A head that cannot be read is
/// an error.
pub(super) fn head(message: &Logged<'_>, reading: &Reading<'_>) -> Result<Option<schema::RequestHead>, ()> {
    let Ok(ContentStory::Included(_)) = state(message, reading) else { return Ok(None) };
    let head = content_of(message).and_then(|content| content.head).ok_or(())?;
    read(&head).map(Some).ok_or(())
}

/// The head of the request, if its content is there and was signed.
pub(super) fn asked(reading: &Reading<'_>) -> Option<Asked> {
    let mut contents = signed_contents(reading, Direction::Request);
    let head: schema::RequestHead = read(contents.find_map(|content| content.head)?.as_ref())?;
    let path = match head.query {
        Some(query) => format!("{}?{query}", head.path),
        None => head.path,
    };
    Some(Asked { method: head.method, path })
}

/// What the response says of itself, if its content is there and was signed.
pub(super) fn answer(reading: &Reading<'_>) -> Option<Answer> {
    let (mut status, mut fields) = (None, Vec::new());
    for content in signed_contents(reading, Direction::Response) {
        if let Some(head) = content.head.and_then(|head| read::<schema::ResponseHead>(&head)) {
            status = Some(head.status);
            fields.extend(head.headers);
        }
        if let Some(trailers) = content.trailers.and_then(|trailers| read::<schema::Trailers>(&trailers)) {
            fields.extend(trailers.headers);
        }
    }
    // The last one counts: trailers end what a head began.
    let field = |name: &str| {
        let found = fields.iter().rev().find(|header| header.name == name)?;
        std::str::from_utf8(&found.value).ok().map(str::to_owned)
    };
    let grpc_status = field("grpc-status").and_then(|text| text.parse().ok());
    let found = status.is_some() || grpc_status.is_some();
    found.then(|| Answer { http_status: status, grpc_status, grpc_message: field("grpc-message") })
}

fn signed_contents(reading: &Reading<'_>, direction: Direction) -> impl Iterator<Item = Content> {
    let messages = reading.messages.iter().filter(move |message| message.manifest.direction == direction);
    messages
        .filter(|message| matches!(state(message, reading), Ok(ContentStory::Included(_))))
        .filter_map(content_of)
}

fn read<M: Message + Default>(encoded: &[u8]) -> Option<M> {
    decode_canonical("head", encoded).ok()
}
