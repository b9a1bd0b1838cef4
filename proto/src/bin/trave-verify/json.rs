//! The report for programs.

use serde_json::{Value, json};
use trave_proto::container::{ArchiveStory, ContainerReport, Part};
use trave_proto::page::safe;
use trave_proto::proof::{
    CallerContextStory, Check, Completeness, Conclusion, ContentStory, MessageStory, Named, NotProved,
    Outcome, Report, Side, Story, Term,
};

/// The report as JSON, ending with a line feed.
pub(crate) fn of(report: &Report) -> String {
    written(&report_of(report))
}

/// The report of a container: its parts and its seal, then the report of the proof in it.
pub(crate) fn of_container(container: &ContainerReport) -> String {
    written(&json!({
        "version": 1,
        "conclusion": conclusion(container.conclusion),
        "parts": container.parts.iter().map(part).collect::<Vec<_>>(),
        "seal": container.sealed.as_ref().map(|seal| json!({
            "server": seal.server.to_string(),
            "member": seal.member.to_string(),
            "at": seal.at.to_string(),
            "not_later_than": seal.stamp.not_later_than.to_string(),
            "timestamping_authority": seal.stamp.authority,
            "authority_status_at": seal.stamp.status.map(|at| at.to_string()),
            "configuration": seal.configuration,
            "qualified": false,
        })),
        "archive_timestamps": container.archived.iter().map(archived).collect::<Vec<_>>(),
        "renew_before": container.last_stamp().map(|last| last.until.to_string()),
        "why": container.why,
        "proof": container.proof.as_ref().map(|(_, report)| report_of(report)),
    }))
}

fn archived(story: &ArchiveStory) -> Value {
    json!({
        "number": story.number,
        "not_later_than": story.stamp.not_later_than.to_string(),
        "timestamping_authority": story.stamp.authority,
        "authority_until": story.stamp.until.to_string(),
        "authority_status_at": story.stamp.status.map(|at| at.to_string()),
        "configuration": story.configuration,
        "files": story.files,
    })
}

fn written(value: &Value) -> String {
    safe::json(&format!("{value:#}\n"))
}

fn part(part: &Part) -> Value {
    json!({ "part": part.name.to_string(), "state": part.state.as_str(), "files": part.files })
}

fn report_of(report: &Report) -> Value {
    json!({
        "version": 1,
        "conclusion": conclusion(report.conclusion),
        "story": report.story.as_ref().map(story),
        "checks": report.checks.iter().map(check).collect::<Vec<_>>(),
        "not_proved": report.not_proved.iter().map(|open| NotProved::as_str(*open)).collect::<Vec<_>>(),
    })
}

fn conclusion(conclusion: Conclusion) -> &'static str {
    match conclusion {
        Conclusion::Holds => "holds",
        Conclusion::DoesNotHold => "does_not_hold",
        Conclusion::CannotTell => "cannot_tell",
    }
}

fn check(check: &Check) -> Value {
    let (outcome, why) = match &check.outcome {
        Outcome::Holds => ("holds", None),
        Outcome::Fails(why) => ("fails", Some(why)),
        Outcome::CannotTell(why) => ("cannot_tell", Some(why)),
    };
    json!({ "name": check.name.as_str(), "outcome": outcome, "why": why, "detail": check.detail })
}

fn story(story: &Story) -> Value {
    let configuration = |(number, digest): &(u64, trave_proto::digest::Digest)| json!({ "number": number, "digest": digest.to_string() });
    json!({
        "exchange_id": story.exchange.to_string(),
        "client": named(&story.client),
        "service": named(&story.service),
        "method": story.method.as_ref().map(ToString::to_string),
        "purpose": term(&story.purpose),
        "legal_basis": term(&story.legal_basis),
        "route": story.route,
        "bridged_from": story.bridged_from.as_ref().map(ToString::to_string),
        "bridged_to": story.bridged_to.as_ref().map(ToString::to_string),
        "caller_context": caller_context(&story.caller_context),
        "client_server": story.client_server.to_string(),
        "provider_server": story.provider_server.to_string(),
        "recorded_by": match story.side { Side::Client => "client", Side::Provider => "provider" },
        "requests": story.requests.iter().map(message).collect::<Vec<_>>(),
        "responses": story.responses.iter().map(message).collect::<Vec<_>>(),
        "asked": story.asked.as_ref().map(|asked| json!({ "method": asked.method, "path": asked.path })),
        "answer": story.answer.as_ref().map(|answer| json!({
            "http_status": answer.http_status,
            "grpc_status": answer.grpc_status,
            "grpc_message": answer.grpc_message,
        })),
        "completeness": completeness(&story.completeness),
        "acknowledged": story.acknowledged.map(|acknowledged| json!({
            "requests": acknowledged.requests, "responses": acknowledged.responses,
        })),
        "ended": story.ended.as_ref().map(|ended| json!({
            "at": ended.at.to_string(),
            "outcome": ended.outcome,
            "reason": ended.reason,
            "side": ended.side,
            "register_reached": ended.register_reached.as_str_name(),
            "by_hearsay": ended.by_hearsay,
            "continued_as": ended.continued_as.map(|exchange| exchange.to_string()),
        })),
        "erased": story.erased.as_ref().map(|erased| json!({
            "at": erased.at.to_string(), "operator": erased.operator, "reason": erased.reason,
        })),
        "grant": story.grant.as_ref().map(|grant| json!({
            "id": grant.id, "subject": grant.subject, "operator": grant.operator, "approver": grant.approver,
            "at": grant.at.to_string(), "group_at": grant.group_at.map(|at| at.to_string()),
        })),
        "sealed": story.sealed.as_ref().map(|sealed| json!({
            "log": sealed.origin,
            "size": sealed.size,
            "root": sealed.root.to_string(),
            "not_later_than": sealed.not_later_than.to_string(),
            "timestamping_authority": sealed.authority,
        })),
        "witnesses": story.witnesses.iter().map(|witness| json!({
            "name": witness.name, "class": witness.class, "foreign": witness.foreign, "at": witness.at.to_string(),
        })).collect::<Vec<_>>(),
        "configurations": story.configurations.iter().map(configuration).collect::<Vec<_>>(),
    })
}

fn named(named: &Named) -> Value {
    json!({ "id": named.id, "name": named.name, "member": named.member })
}

fn term(term: &Term) -> Value {
    json!({ "code": term.code, "text": term.text, "text_de": term.text_de, "citation": term.citation })
}

fn caller_context(context: &CallerContextStory) -> Value {
    match context {
        CallerContextStory::NotDeclared => json!({ "state": "not_declared" }),
        CallerContextStory::NotIncluded => json!({ "state": "not_included" }),
        CallerContextStory::Included(context) => json!({
            "state": "included",
            "user": context.user,
            "issue": context.issue,
            "message_id": context.message_id,
            "subject": context.subject,
            "represented_party": context.represented_party,
        }),
    }
}

fn message(message: &MessageStory) -> Value {
    let content = match message.content {
        ContentStory::Included(_) => "included",
        ContentStory::NotKept => "not_kept",
        ContentStory::Erased => "erased",
        ContentStory::Withheld => "withheld",
        ContentStory::Mismatch => "mismatch",
    };
    json!({
        "index": message.index,
        "created": message.created.to_string(),
        "logged": message.logged.to_string(),
        "recovered_from": message.recovered_from.as_ref().map(ToString::to_string),
        "ending": message.ending.as_str_name(),
        "length": message.length,
        "content": content,
    })
}

fn completeness(completeness: &Completeness) -> Value {
    match completeness {
        Completeness::Whole => json!({ "state": "whole" }),
        Completeness::AnsweredEarly { requests, responses } => {
            json!({ "state": "answered_early", "requests": requests, "responses": responses })
        }
        Completeness::BrokenOff { requests, responses } => {
            json!({ "state": "broken_off", "requests": requests, "responses": responses })
        }
        Completeness::Open { requests, responses } => {
            json!({ "state": "open", "requests": requests, "responses": responses })
        }
    }
}
