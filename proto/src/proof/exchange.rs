//! The course of the exchange: its messages in order, about one thing, from the first to the last, at plausible times.

use std::collections::HashMap;

use super::reading::{Logged, Reading};
use super::report::{Failure, Found};
use super::seal::Stamped;
use super::story::{Acknowledged, Completeness};
use super::trust::Trust;
use crate::clock::Time;
use crate::conversation::{TOLERANCE, Topic};
use crate::digest::Digest;
use crate::identifier::{ServerId, XRoadServiceId};
use crate::message::{Direction, Ending, Manifest};
use crate::schema::log::Outcome;

/// One direction of an exchange, as far as it was followed.
#[derive(Default)]
struct Course<'r> {
    count: u64,
    last: Option<&'r Manifest>,
    /// Position in the other direction that its messages have named last, from 1.
    answered: u64,
}

/// The messages of each direction follow one another without a gap, are about one thing, and answer what was said.
pub(super) fn order(reading: &Reading<'_>) -> Found<Acknowledged> {
    let first = &reading.messages[0].manifest;
    let topic = Topic::of(first);
    let mut courses = [Course::default(), Course::default()];
    for message in &reading.messages {
        let refused = |why: &str| Failure::fails(format!("{}: {why}", message.label()));
        if Topic::of(&message.manifest) != topic {
            return Err(refused("it is about something else than the first message"));
        }
        if ends(&message.manifest) != ends(first) {
            return Err(refused("it is between other security servers than the first message"));
        }
        follow(&mut courses[way(&message.manifest)], &message.manifest).map_err(refused)?;
    }
    let places = places(reading);
    for message in &reading.messages {
        let course = &mut courses[way(&message.manifest)];
        answer(course, &message.manifest, &places)
            .map_err(|why| Failure::fails(format!("{}: {why}", message.label())))?;
    }
    // Each direction names what its sender had received of the other.
    let acknowledged = Acknowledged { requests: courses[1].answered, responses: courses[0].answered };
    let detail = format!("{} of the request, {} of the response", courses[0].count, courses[1].count);
    Ok((acknowledged, detail))
}

fn way(manifest: &Manifest) -> usize {
    usize::from(manifest.direction == Direction::Response)
}

/// Client's and provider's security server.
fn ends(manifest: &Manifest) -> (&ServerId, &ServerId) {
    match manifest.direction {
        Direction::Response => (&manifest.receiver, &manifest.sender),
        _ => (&manifest.sender, &manifest.receiver),
    }
}

fn follow<'r>(course: &mut Course<'r>, manifest: &'r Manifest) -> Result<(), &'static str> {
    if manifest.index != course.count || manifest.previous != course.last.map(Manifest::digest) {
        return Err("it does not follow the message before it: one is missing, doubled or out of order");
    }
    if let Some(last) = course.last {
        if last.ending != Ending::Continue {
            return Err("it came after the last message of its direction");
        }
        let same = last.nonce == manifest.nonce
            && last.signing_certificate == manifest.signing_certificate
            && last.log_origin == manifest.log_origin;
        if !same {
            return Err("it names another connection, signing certificate or log than the one before it");
        }
        if last.bridged_to != manifest.bridged_to {
            return Err("it was answered from elsewhere beyond the bridge than the one before it");
        }
    }
    course.count += 1;
    course.last = Some(manifest);
    Ok(())
}

/// Where each message stands in its direction, from 1.
fn places(reading: &Reading<'_>) -> HashMap<(usize, Digest), u64> {
    let place = |message: &Logged<'_>| {
        let manifest = &message.manifest;
        ((way(manifest), manifest.digest()), manifest.index + 1)
    };
    reading.messages.iter().map(place).collect()
}

/// What a message names as last received was sent, and is not before what the one before it named.
fn answer(
    course: &mut Course<'_>,
    manifest: &Manifest,
    places: &HashMap<(usize, Digest), u64>,
) -> Result<(), &'static str> {
    let named = match manifest.last_received {
        None => 0,
        Some(digest) => {
            let other = 1 - way(manifest);
            *places.get(&(other, digest)).ok_or("it answers a message that is not in the file")?
        }
    };
    if named < course.answered {
        return Err("it answers an earlier message than the one before it");
    }
    course.answered = named;
    Ok(())
}

/// Where the record of the end says that a call crossed a bridge: the same as the answer does, as far as there is one.
fn check_bridge(reading: &Reading<'_>, recorded: &str) -> Result<(), &'static str> {
    if recorded.is_empty() {
        return Ok(());
    }
    let recorded: XRoadServiceId =
        recorded.parse().map_err(|_| "the record of its end names no service beyond a bridge")?;
    let answers = reading.messages.iter().filter(|one| one.manifest.direction == Direction::Response);
    match answers.map(|one| one.manifest.bridged_to.as_ref()).all(|there| there == Some(&recorded)) {
        true => Ok(()),
        false => Err("the record of its end names another service beyond the bridge than the answer"),
    }
}

/// Whether the exchange is whole, or broken off with a record of why, or open.
pub(super) fn completeness(reading: &Reading<'_>) -> Found<Completeness> {
    let (requests, responses) = counts(reading);
    let ended = |direction| {
        let last = reading.messages.iter().rev().find(|message| message.manifest.direction == direction);
        last.map(|message| message.manifest.ending)
    };
    let endings = [ended(Direction::Request), ended(Direction::Response)];
    let detail = format!("{requests} messages of the request, {responses} of the response");
    if let Some(noted) = &reading.ended {
        if (noted.entry.requests, noted.entry.responses) != logged_at_their_time(reading) {
            // What was withheld, and what was lost when the log itself failed, look the same from here.
            let (requests, responses) = (noted.entry.requests, noted.entry.responses);
            let why = format!(
                "its end was recorded after {requests} and {responses} messages, the file has {detail}"
            );
            return Err(Failure::CannotTell(why));
        }
        if !matches!(noted.entry.outcome(), Outcome::Failed | Outcome::Aborted | Outcome::Unknown) {
            return Err(Failure::fails("the record of its end says nothing"));
        }
        check_bridge(reading, &noted.entry.bridged_to).map_err(Failure::fails)?;
    }
    if endings == [Some(Ending::End), Some(Ending::End)] {
        return Ok((Completeness::Whole, detail));
    }
    if endings[1] == Some(Ending::End) {
        // A register may answer before it has heard everything; then nobody records the rest of the request.
        return Ok((Completeness::AnsweredEarly { requests, responses }, detail));
    }
    if reading.ended.is_some() || endings.contains(&Some(Ending::Abort)) {
        return Ok((Completeness::BrokenOff { requests, responses }, detail));
    }
    let why = "the exchange has no end in this file, and no record of why: it was under way, or messages are withheld";
    Err(Failure::cannot_tell(format!("{why} ({detail})")))
}

/// Messages of the request and of the response.
pub(super) fn counts(reading: &Reading<'_>) -> (u64, u64) {
    let responses = reading.messages.iter().filter(|m| m.manifest.direction == Direction::Response).count();
    ((reading.messages.len() - responses) as u64, responses as u64)
}

/// The same, without what came back after the log had lost it, or never had it.
fn logged_at_their_time(reading: &Reading<'_>) -> (u64, u64) {
    let count = |direction| {
        let of = |m: &&Logged<'_>| {
            m.recovered_from.is_none() && (m.manifest.direction == Direction::Response) == direction
        };
        reading.messages.iter().filter(of).count() as u64
    };
    (count(false), count(true))
}

/// No time contradicts another by more than clocks may differ.
pub(super) fn times(reading: &Reading<'_>, trust: &Trust, stamped: &Stamped) -> Found<()> {
    let first = &reading.messages[0].manifest;
    if !near(reading.exchange.time(), first.created) {
        return Err(Failure::fails("the exchange's id is of another time than its first message"));
    }
    let latest = stamped.not_later_than().plus(TOLERANCE);
    for message in &reading.messages {
        let refused = |why: String| Failure::fails(format!("{}: {why}", message.label()));
        let (created, logged) = (message.manifest.created, message.logged);
        let back = message.recovered_from.is_some();
        if back && logged.plus(TOLERANCE) < created {
            return Err(refused(format!("made at {created}, and came back before, at {logged}")));
        }
        if !back && !near(created, logged) {
            return Err(refused(format!("made at {created}, recorded at {logged}")));
        }
        if logged > latest {
            return Err(refused(format!("recorded at {logged}, after the timestamp")));
        }
        for (digest, at) in
            [(message.configuration, logged), (message.manifest.configuration_digest, created)]
        {
            let configuration = trust.get(&digest)?;
            let (from, until) = (configuration.issued(), configuration.valid_until());
            if at.plus(TOLERANCE) < from || at > until.plus(TOLERANCE) {
                let number = configuration.number();
                return Err(refused(format!("{at} is outside configuration {number}, {from} to {until}")));
            }
        }
    }
    let noted = [reading.ended.as_ref().map(|n| n.at), reading.erasure.as_ref().map(|n| n.at)];
    if let Some(at) =
        noted.into_iter().flatten().find(|at| *at > latest || at.plus(TOLERANCE) < first.created)
    {
        return Err(Failure::fails(format!(
            "a record of {at} is from before the exchange or after the timestamp"
        )));
    }
    let detail = format!("made {}, stamped {}", first.created, stamped.timestamp.time());
    Ok(((), detail))
}

fn near(one: Time, other: Time) -> bool {
    one <= other.plus(TOLERANCE) && other <= one.plus(TOLERANCE)
}
