//! E0308: A conversation does not accept a message whose signature nobody verified.
use trave_proto::clock::Time;
use trave_proto::conversation::Conversation;
use trave_proto::signature::{Request, Signed};

fn accept(conversation: &mut Conversation, signed: Signed<Request>, now: Time) {
    let _ = conversation.accept(signed, now);
}

fn main() {}
