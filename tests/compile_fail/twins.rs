//! Every stage, taken in order: the twin of each program in `refused`, which leaves one out.

#![allow(dead_code, reason = "that it compiles is what is tested")]

use trave_gateway::access::{Access, Grant};
use trave_message_log::{Entry, Log, LogError, Logged};
use trave_proto::clock::Time;
use trave_proto::conversation::{Conversation, Verified};
use trave_proto::global_configuration::Configuration;
use trave_proto::schema::message::Envelope;
use trave_proto::signature::{BatchSignature, Request, Response, Signed, Unsigned};
use trave_proto::verification::{NoMemory, TrustedSigner};

fn serve(_: Logged<Verified<Request>>) {}

fn answer(_: Logged<Signed<Response>>) {}

async fn a_request_is_served(
    envelope: Envelope,
    (signer, configuration, now): (&TrustedSigner, &Configuration, Time),
    conversation: &mut Conversation,
    (log, entry): (&Log, Entry),
) -> Result<(), Box<dyn std::error::Error>> {
    let signed = Signed::<Request>::receive(envelope)?;
    let authentic = signer.authenticate(signed, configuration, now, &NoMemory)?;
    let verified = conversation.accept(authentic, now)?;
    let logged = log.append(entry, verified)?.await?;
    serve(logged);
    Ok(())
}

async fn a_response_is_answered(
    unsigned: Unsigned<Response>,
    signature: BatchSignature,
    (log, entry): (&Log, Entry),
) -> Result<(), LogError> {
    let Ok(signed) = unsigned.signed(signature) else { return Ok(()) };
    let logged = log.append(entry, signed)?.await?;
    answer(logged);
    Ok(())
}

fn grants_can_be_looked_at(access: &Access) -> Option<std::sync::Arc<Grant>> {
    access.list().pop()
}

fn main() {}
