//! What an administrator is shown.

use trave_proto::checkpoint::NoteVerifier;
use trave_proto::digest::Digest;
use trave_proto::global_configuration::Configuration;
use trave_proto::management::describe;
use trave_proto::schema::configuration::{GlobalConfiguration, SecurityServer};
use trave_proto::schema::management::act::Change;

use crate::administrator::ShownAct;

/// One act per paragraph: id and state, what it does, who signed.
pub(super) fn acts(acts: &[ShownAct]) {
    if acts.is_empty() {
        eprintln!("no acts");
    }
    for shown in acts {
        println!("{}  {}", shown.act.id(), state(shown));
        println!("    {}", describe(shown.act.change()));
        println!("    digest {}", shown.act.digest());
        if !shown.applicant.is_empty() {
            println!("    applied for by {}", shown.applicant);
        }
        if !shown.approver.is_empty() {
            println!("    approved by {}", shown.approver);
        }
    }
}

fn state(shown: &ShownAct) -> String {
    match shown.state.as_str() {
        "in_force" => format!("in force since configuration {}", shown.configuration_number),
        "requested" => format!("requested by a security server, until {}", shown.act.expires()),
        "applied" => format!("awaits approval until {}", shown.act.expires()),
        "approved" => "approved, awaits the cosigner's signature".into(),
        "failed" => "approved, but it cannot be carried out any more; apply for it again".into(),
        other => other.into(),
    }
}

/// The whole configuration, in words.
pub(super) fn configuration(verified: &Configuration, decoded: &GlobalConfiguration) {
    println!("configuration {} of {}", verified.number(), verified.instance());
    println!("    digest       {}", verified.digest());
    println!("    issued       {}", verified.issued());
    println!("    valid until  {}", verified.valid_until());
    let keys: Vec<_> = verified.signed().signatures.iter().map(|signature| signature.key.as_str()).collect();
    println!("    signed by    {}", keys.join(", "));
    for administrator in &decoded.administrators {
        let key = Digest::of(&administrator.public_key);
        println!("administrator {} ({}), key {key}", administrator.name, administrator.class);
    }
    for auditor in &decoded.auditors {
        let text = describe(&Change::PutAuditor(auditor.clone()));
        println!("auditor {}", text.strip_prefix("register ").unwrap_or(&text));
    }
    for member in &decoded.members {
        println!("member {} ({})", member.id, member.name);
        for subsystem in &member.subsystems {
            println!("    subsystem {} ({})", subsystem.id, subsystem.name);
        }
    }
    decoded.security_servers.iter().for_each(security_server);
    for service in &decoded.services {
        println!("service {} ({})", service.id, service.title);
        println!("    methods {}; purposes {}", service.methods.join(", "), service.purposes.join(", "));
    }
    for group in &decoded.groups {
        println!("group {} ({})", group.code, group.name);
        println!("    members {}", group.members.join(", "));
    }
    for (what, entries) in [("purpose", &decoded.purposes), ("legal basis", &decoded.legal_bases)] {
        for entry in entries {
            println!("{what} {}: {} / {} ({})", entry.code, entry.text, entry.text_de, entry.citation);
        }
    }
    for authority in verified.certification_authorities() {
        println!("certification authority {}", authority.name);
    }
    for authority in verified.timestamping_authorities() {
        println!("timestamping authority {} at {}", authority.name, authority.url);
    }
    for witness in verified.witnesses() {
        println!("witness {} ({}) at {}", witness.verifier, witness.class, witness.url);
    }
    if let Some(policy) = &decoded.policy {
        let text = describe(&Change::PutPolicy(policy.clone()));
        println!("policy: {}", text.strip_prefix("replace the policy: ").unwrap_or(&text));
    }
}

fn security_server(server: &SecurityServer) {
    let suspended = if server.suspended { ", SUSPENDED" } else { "" };
    println!("security server {} at {}{suspended}", server.id, server.address);
    println!("    subsystems {}", server.subsystems.join(", "));
    for (what, keys) in
        [("authentication key", &server.authentication_keys), ("signing key", &server.signing_keys)]
    {
        keys.iter().for_each(|key| println!("    {what} {}", hex::encode(key)));
    }
    for log in &server.logs {
        println!("    log {} with the key {}", log.origin, hex::encode(&log.public_key));
        let key = log.public_key.as_ref().try_into().ok();
        if let Some(Ok(verifier)) = key.map(|key| NoteVerifier::new(&log.origin, key)) {
            println!("    log verifier key {verifier}");
        }
    }
}
