//! The order of an exchange: which manifest may come next, from whom, to whom, in answer to what.
//!
//! Each side keeps one [`Conversation`]. It makes the fields of what this side sends and accepts what the other side
//! sends, or says why not. Whose signature a message bears was decided before, by [`crate::verification`].

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Time;
use crate::digest::Digest;
use crate::identifier::{
    ExchangeId, Method, ServerId, ServiceId, SubsystemId, XRoadClientId, XRoadServiceId,
};
use crate::message::{Code, Direction, Ending, Manifest, ManifestFields};
use crate::signature::{Parts, Request, Signed, Way};
use crate::verification::Authentic;

/// How far the times of exchange ids and manifests may lie from the receiver's.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// How many messages one side may leave unacknowledged before the other breaks off: a bound on what is remembered.
pub const MAX_UNACKNOWLEDGED: usize = 1 << 20;

/// What an exchange is about: the same in each of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the manifest")]
pub struct Topic {
    pub exchange: ExchangeId,
    pub client: SubsystemId,
    pub service: ServiceId,
    pub method: Option<Method>,
    pub purpose: Code,
    pub legal_basis: Code,
    pub route: Option<String>,
    pub bridged_from: Option<XRoadClientId>,
}

impl Topic {
    /// What `manifest` is about.
    pub fn of(manifest: &Manifest) -> Self {
        Self {
            exchange: manifest.exchange,
            client: manifest.client.clone(),
            service: manifest.service.clone(),
            method: manifest.method.clone(),
            purpose: manifest.purpose.clone(),
            legal_basis: manifest.legal_basis.clone(),
            route: manifest.route.clone(),
            bridged_from: manifest.bridged_from.clone(),
        }
    }
}

/// One of the two security servers of an exchange, as the greeting of this connection showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The security server.
    pub server: ServerId,
    /// The nonce that it gave: messages to it carry this.
    pub nonce: [u8; 32],
    /// The origin of its message log.
    pub log_origin: String,
    /// SHA-256 of its signing certificate.
    pub signing_certificate: Digest,
}

/// Why a manifest may not come here or now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// It is addressed to another security server or comes from another.
    #[error("the message is not between these two security servers")]
    Audience,
    /// It carries the nonce of another connection.
    #[error("the message carries the nonce of another connection")]
    Nonce,
    /// Its time lies too far from ours.
    #[error("the message's time lies more than five minutes from this server's")]
    Time,
    /// It belongs to another exchange, or says something else about it than the first message.
    #[error("the message does not belong to this exchange")]
    Topic,
    /// Not the next one: dropped, doubled or reordered.
    #[error("message {found} came where message {expected} must follow")]
    Index {
        /// The index that must follow.
        expected: u64,
        /// The index that came.
        found: u64,
    },
    /// It does not follow the message before it.
    #[error("the message does not name the one before it")]
    Previous,
    /// It answers a message that was not sent.
    #[error("the message answers one that was not sent")]
    LastReceived,
    /// Its direction had ended.
    #[error("a message came after the last one")]
    Ended,
    /// Its signer or log is not the one of the greeting.
    #[error("the message names another signing certificate or log than its server's greeting")]
    Signer,
}

/// Configuration number and digest that the next manifest names.
#[derive(Clone, Copy, Debug)]
pub struct InUse {
    /// Number of the global configuration in use.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
}

/// A message that is authentic, addressed to this server, fresh, and the one that must come next.
/// [`Conversation::accept`] is its only maker.
#[derive(Debug, Clone)]
pub struct Verified<W>(Signed<W>);

impl<W: Way> Verified<W> {
    /// What was signed.
    pub fn manifest(&self) -> &Manifest {
        self.0.manifest()
    }

    /// What the manifest commits to.
    pub fn parts(&self) -> &Parts {
        self.0.parts()
    }

    /// The message itself.
    pub fn signed(&self) -> &Signed<W> {
        &self.0
    }
}

fn within_tolerance(time: Time, now: Time) -> bool {
    time <= now.plus(TOLERANCE) && time >= now.minus(TOLERANCE)
}

/// One side's view of an exchange.
#[derive(Debug)]
pub struct Conversation {
    topic: Topic,
    own_direction: Direction,
    own: Party,
    peer: Party,
    sent: u64,
    last_sent: Option<Digest>,
    /// Sent, and not yet named by the other side as last received, oldest first.
    unacknowledged: VecDeque<Digest>,
    acknowledged: Option<Digest>,
    received: u64,
    last_received: Option<Digest>,
    own_ended: bool,
    peer_ended: bool,
    /// At the provider: the foreign service that answers.
    bridged_to: Option<XRoadServiceId>,
    /// At the client: what the first message of the answer said of that.
    answered_by: Option<Option<XRoadServiceId>>,
}

impl Conversation {
    /// The client's side: it speaks first.
    pub fn ask(topic: Topic, own: Party, peer: Party) -> Self {
        Self::new(topic, Direction::Request, own, peer)
    }

    /// The provider's side: it begins with the first request.
    pub fn answer(
        first: Authentic<Request>,
        own: Party,
        peer: Party,
        now: Time,
    ) -> Result<(Self, Verified<Request>), OrderError> {
        let mut conversation = Self::new(Topic::of(first.manifest()), Direction::Response, own, peer);
        if !within_tolerance(first.manifest().exchange.time(), now) {
            return Err(OrderError::Time);
        }
        let verified = conversation.accept(first, now)?;
        Ok((conversation, verified))
    }

    fn new(topic: Topic, own_direction: Direction, own: Party, peer: Party) -> Self {
        Self {
            topic,
            own_direction,
            own,
            peer,
            sent: 0,
            last_sent: None,
            unacknowledged: VecDeque::new(),
            acknowledged: None,
            received: 0,
            last_received: None,
            own_ended: false,
            peer_ended: false,
            bridged_to: None,
            answered_by: None,
        }
    }

    /// At the provider: what answers is a service of an existing X-Road instance, behind this bridge. Every message of the
    /// answer says so.
    #[must_use]
    pub fn bridged_to(self, service: Option<XRoadServiceId>) -> Self {
        Self { bridged_to: service, ..self }
    }

    /// Whether this side must wait: the other has left too many messages unacknowledged, and says nothing.
    pub fn is_choked(&self) -> bool {
        self.unacknowledged.len() >= MAX_UNACKNOWLEDGED
    }

    /// What the exchange is about.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Messages sent and received so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.received)
    }

    /// Whether the other side's direction has ended.
    pub fn peer_has_ended(&self) -> bool {
        self.peer_ended
    }

    /// Whether both directions are complete.
    pub fn is_complete(&self) -> bool {
        self.own_ended && self.peer_ended
    }

    /// The fields of this side's next manifest. Commitments and length are set by whoever makes the message.
    pub fn next(&self, created: Time, in_use: InUse, ending: Ending) -> ManifestFields {
        let topic = self.topic.clone();
        ManifestFields {
            exchange: topic.exchange,
            direction: self.own_direction,
            index: self.sent,
            previous: self.last_sent,
            last_received: self.last_received,
            client: topic.client,
            service: topic.service,
            method: topic.method,
            sender: self.own.server.clone(),
            receiver: self.peer.server.clone(),
            log_origin: self.own.log_origin.clone(),
            signing_certificate: self.own.signing_certificate,
            configuration_number: in_use.number,
            configuration_digest: in_use.digest,
            nonce: self.peer.nonce,
            purpose: topic.purpose,
            legal_basis: topic.legal_basis,
            created,
            content_commitment: Digest::from_bytes([0; Digest::LEN]),
            caller_context_commitment: None,
            content_length: 0,
            ending,
            route: topic.route,
            bridged_from: topic.bridged_from,
            bridged_to: self.bridged_to.clone(),
        }
    }

    /// Notes that a manifest of this digest and ending, made of [`Self::next`], was signed and is on its way.
    pub fn sent(&mut self, manifest: Digest, ending: Ending) {
        self.sent += 1;
        self.last_sent = Some(manifest);
        if !self.peer_ended {
            self.unacknowledged.push_back(manifest);
        }
        self.own_ended = ending != Ending::Continue;
    }

    /// Accepts the other side's next message, or says why it may not come. A refused one changes nothing.
    pub fn accept<W: Way>(&mut self, message: Authentic<W>, now: Time) -> Result<Verified<W>, OrderError> {
        self.check(message.manifest(), now)?;
        Ok(Verified(message.into_signed()))
    }

    fn check(&mut self, manifest: &Manifest, now: Time) -> Result<(), OrderError> {
        self.check_parties(manifest)?;
        if Topic::of(manifest) != self.topic || manifest.direction == self.own_direction {
            return Err(OrderError::Topic);
        }
        if self.answered_by.as_ref().is_some_and(|first| *first != manifest.bridged_to) {
            return Err(OrderError::Topic);
        }
        if !within_tolerance(manifest.created, now) {
            return Err(OrderError::Time);
        }
        if self.peer_ended {
            return Err(OrderError::Ended);
        }
        if manifest.index != self.received {
            return Err(OrderError::Index { expected: self.received, found: manifest.index });
        }
        if manifest.previous != self.last_received {
            return Err(OrderError::Previous);
        }
        self.acknowledge(manifest.last_received)?;
        self.received += 1;
        self.answered_by.get_or_insert_with(|| manifest.bridged_to.clone());
        self.last_received = Some(manifest.digest());
        self.peer_ended = manifest.ending != Ending::Continue;
        if self.peer_ended {
            // Nothing comes from there any more that could name one of these.
            self.unacknowledged = VecDeque::new();
        }
        Ok(())
    }

    fn check_parties(&self, manifest: &Manifest) -> Result<(), OrderError> {
        if manifest.sender != self.peer.server || manifest.receiver != self.own.server {
            return Err(OrderError::Audience);
        }
        if manifest.nonce != self.own.nonce {
            return Err(OrderError::Nonce);
        }
        if manifest.signing_certificate != self.peer.signing_certificate
            || manifest.log_origin != self.peer.log_origin
        {
            return Err(OrderError::Signer);
        }
        Ok(())
    }

    /// The other side has received all up to `last`: it never names one before that again.
    fn acknowledge(&mut self, last: Option<Digest>) -> Result<(), OrderError> {
        if last == self.acknowledged {
            return Ok(());
        }
        let at = self.unacknowledged.iter().position(|digest| Some(*digest) == last);
        let at = at.ok_or(OrderError::LastReceived)?;
        self.unacknowledged.drain(..=at);
        self.acknowledged = last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Content, Salt, tests_sample};
    use crate::signature::{BatchSignature, Unsigned};

    const NOW: Time = Time::from_millis(1_795_288_440_005);
    const IN_USE: InUse = InUse { number: 1, digest: Digest::from_bytes([1; 32]) };

    fn party(server: &str, nonce: u8) -> Party {
        Party {
            server: server.parse().unwrap(),
            nonce: [nonce; 32],
            log_origin: format!("log/{server}"),
            signing_certificate: Digest::of(server.as_bytes()),
        }
    }

    fn client() -> Party {
        party("NORD/SH/luebeck/s1", 1)
    }

    fn provider() -> Party {
        party("NORD/MV/gewerberegister/s1", 2)
    }

    fn ask() -> Conversation {
        Conversation::ask(Topic::of(&Manifest::new(tests_sample())), client(), provider())
    }

    fn say(from: &mut Conversation, ending: Ending) -> Manifest {
        let manifest = Manifest::new(from.next(NOW, IN_USE, ending));
        from.sent(manifest.digest(), manifest.ending);
        manifest
    }

    fn answer(first: &Manifest, now: Time) -> Result<Conversation, OrderError> {
        let parts =
            Parts { content: Content::default(), content_salt: Salt::new([0; 32]), caller_context: None };
        let message = Unsigned::<Request>::new(ManifestFields::clone(first), parts).unwrap();
        let signature = BatchSignature::unchecked_in_tests(message.manifest());
        let message = Authentic::unchecked_in_tests(message.signed(signature).unwrap());
        let (mut conversation, _) = Conversation::answer(message, provider(), client(), now)?;
        // What the answerer has seen is `first` itself, whose commitments this test does not care for.
        conversation.last_received = Some(first.digest());
        Ok(conversation)
    }

    #[test]
    fn a_stream_goes_both_ways() {
        let mut asking = ask();
        let first = say(&mut asking, Ending::Continue);
        let mut answering = answer(&first, NOW).unwrap();
        for _ in 0..3 {
            let answer = say(&mut answering, Ending::Continue);
            let question = say(&mut asking, Ending::Continue);
            asking.check(&answer, NOW).unwrap();
            answering.check(&question, NOW).unwrap();
        }
        answering.check(&say(&mut asking, Ending::End), NOW).unwrap();
        asking.check(&say(&mut answering, Ending::End), NOW).unwrap();
        assert!(asking.is_complete() && answering.is_complete());
        assert_eq!(asking.counts(), (5, 4));
        assert!(asking.unacknowledged.is_empty());
    }

    #[test]
    fn dropped_doubled_reordered_and_foreign_messages_are_refused() {
        let mut asking = ask();
        let messages: Vec<_> = (0..4).map(|_| say(&mut asking, Ending::Continue)).collect();
        let mut answering = answer(&messages[0], NOW).unwrap();
        answering.check(&messages[1], NOW).unwrap();
        let index = |found| Err(OrderError::Index { expected: 2, found });
        assert_eq!(answering.check(&messages[3], NOW), index(3), "dropped");
        assert_eq!(answering.check(&messages[1], NOW), index(1), "doubled");
        let altered = |change: fn(&mut ManifestFields)| {
            let mut fields = ManifestFields::clone(&messages[2]);
            change(&mut fields);
            Manifest::new(fields)
        };
        type Row = (OrderError, fn(&mut ManifestFields));
        let rows: [Row; 9] = [
            (OrderError::Previous, |f| f.previous = Some(Digest::of(b"other"))),
            (OrderError::LastReceived, |f| f.last_received = Some(Digest::of(b"other"))),
            (OrderError::Audience, |f| f.receiver = "NORD/MV/anderes/s1".parse().unwrap()),
            (OrderError::Nonce, |f| f.nonce = [7; 32]),
            (OrderError::Signer, |f| f.signing_certificate = Digest::of(b"other")),
            (OrderError::Topic, |f| f.purpose = "anderer".parse().unwrap()),
            (OrderError::Topic, |f| f.direction = Direction::Response),
            (OrderError::Time, |f| f.created = NOW.plus(TOLERANCE).plus(Duration::from_millis(1))),
            (OrderError::Time, |f| f.created = NOW.minus(TOLERANCE).minus(Duration::from_millis(1))),
        ];
        for (error, change) in rows {
            assert_eq!(answering.check(&altered(change), NOW), Err(error));
        }
        answering.check(&messages[2], NOW).unwrap();
    }

    #[test]
    fn a_bridge_is_named_in_every_message() {
        let mut asking = ask();
        asking.topic.bridged_from = Some("EE/GOV/70000310/amet".parse().unwrap());
        let first = say(&mut asking, Ending::Continue);
        assert_eq!(first.bridged_from, asking.topic.bridged_from);
        let there: XRoadServiceId = "EE/GOV/1/sub/rr".parse().unwrap();
        let mut answering = answer(&first, NOW).unwrap().bridged_to(Some(there.clone()));
        let answered = say(&mut answering, Ending::Continue);
        assert_eq!((&answered.bridged_from, &answered.bridged_to), (&first.bridged_from, &Some(there)));
        asking.check(&answered, NOW).unwrap();
        let next = say(&mut answering, Ending::End);
        let altered = |change: fn(&mut ManifestFields)| {
            let mut fields = ManifestFields::clone(&next);
            change(&mut fields);
            Manifest::new(fields)
        };
        for change in [
            (|f| f.bridged_to = None) as fn(&mut ManifestFields),
            |f| f.bridged_to = Some("EE/GOV/1/sub/other".parse().unwrap()),
            |f| f.bridged_from = None,
        ] {
            assert_eq!(asking.check(&altered(change), NOW), Err(OrderError::Topic));
        }
        asking.check(&next, NOW).unwrap();
    }

    #[test]
    fn nothing_follows_the_end_and_no_old_exchange_begins() {
        let mut asking = ask();
        let first = say(&mut asking, Ending::End);
        let mut answering = answer(&first, NOW).unwrap();
        let after = Manifest::new(asking.next(NOW, IN_USE, Ending::End));
        assert_eq!(answering.check(&after, NOW), Err(OrderError::Ended));
        let late = NOW.plus(TOLERANCE).plus(Duration::from_millis(1));
        assert_eq!(answer(&first, late).map(|_| ()), Err(OrderError::Time));
    }
}
