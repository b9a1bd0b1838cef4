//! Lets `trave-proto` verify what another program made: the other half of `tests/interop/openssl`.
//!
//! `verify chain PROFILE AUTHORITY CERTIFICATE…` · `verify ocsp RESPONSE CERTIFICATE ISSUER` ·
//! `verify token TOKEN FILE AUTHORITY` · `verify response TIMESTAMP-RESPONSE` · `verify list LIST AUTHORITY SERIAL` ·
//! `verify signature CERTIFICATE FILE SIGNATURE`. All files but the signed ones are DER. Prints what holds; exit 1 if not.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use trave_host::clock::SystemClock;
use trave_proto::certificate::{Certificate, Profile, VerifiedChain, VerifiedRevocationList, ocsp};
use trave_proto::clock::Clock;
use trave_proto::digest::Digest;
use trave_proto::timestamp::{Timestamp, token_of};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<String> {
    match arguments {
        ["chain", profile, authority, chain @ ..] => verify_chain(profile, authority, chain),
        ["ocsp", response, certificate, issuer] => verify_ocsp(response, certificate, issuer),
        ["token", token, file, authority] => verify_token(token, file, authority),
        ["response", response] => Ok(format!("a token of {} bytes", token_of(&read(response)?)?.len())),
        ["list", list, authority, serial] => verify_list(list, authority, serial),
        ["signature", signer, file, signature] => verify_signature(signer, file, signature),
        _ => bail!("what shall be verified?"),
    }
}

fn verify_chain(profile: &str, authority: &str, chain: &[&str]) -> anyhow::Result<String> {
    let profile = match profile {
        "authentication" => Profile::Authentication,
        "signing" => Profile::Signing,
        other => bail!("{other} is no profile"),
    };
    let chain = chain.iter().map(|path| read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let verified = VerifiedChain::verify(&chain, &[read(authority)?], profile, SystemClock.now())?;
    let subject = verified.subject();
    Ok(format!("{} of {} at {}", profile, subject.member, subject.server))
}

fn verify_ocsp(response: &str, certificate: &str, issuer: &str) -> anyhow::Result<String> {
    let certificate = Certificate::from_der(&read(certificate)?)?;
    let issuer = Certificate::from_der(&read(issuer)?)?;
    let expected = ocsp::Expected { at: SystemClock.now(), max_age: Duration::from_secs(3600), nonce: None };
    let good = ocsp::verify(&read(response)?, &certificate, &issuer, expected)?;
    Ok(format!("good until {}", good.expires()))
}

fn verify_token(token: &str, file: &str, authority: &str) -> anyhow::Result<String> {
    let digest = Digest::of(&read(file)?);
    let stamp = Timestamp::verify(&read(token)?, &digest, None, &[read(authority)?])?;
    Ok(format!("existed at {} under policy {}", stamp.time(), stamp.policy()))
}

fn verify_list(list: &str, authority: &str, serial: &str) -> anyhow::Result<String> {
    let authority = Certificate::from_der(&read(authority)?)?;
    let list = VerifiedRevocationList::verify(&read(list)?, &authority, SystemClock.now())?;
    let serial = hex::decode(serial).context("a serial number is hexadecimal")?;
    Ok(list.revoked_at(&serial).map_or("not revoked".to_owned(), |at| format!("revoked at {at}")))
}

fn verify_signature(signer: &str, file: &str, signature: &str) -> anyhow::Result<String> {
    let key = Certificate::from_der(&read(signer)?)?.public_key()?;
    key.verify(&read(file)?, &read(signature)?)?;
    Ok(format!("signed with {}", key.algorithm()))
}

fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {path}"))
}
