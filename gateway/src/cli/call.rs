//! A test call, made as an agency system makes it: the operator sees what a caller sees, bytes in and bytes out.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full, Limited};
use trave_host::client::Channel;

use super::Call;
use crate::config::{Agency, AgencyTransport, Config};

/// The largest answer that is read, in bytes.
const MOST: usize = 64 << 20;
/// Before each gRPC message: a flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const PREFIX: usize = 5;

/// Calls, and prints status, exchange and answer; the exit status is 0 for gRPC's OK.
pub(super) fn run(path: &Path, call: &Call) -> anyhow::Result<ExitCode> {
    let config = Config::read(path)?;
    let request = request(call, message(&call.data)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the system gives no runtime")?;
    let answer = runtime.block_on(async {
        let mut door = connect(&config, call).await?;
        let (head, body) = door.send(request).await.context("the call broke off")?.into_parts();
        let body = Limited::new(body, MOST).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        let trailers = body.trailers().cloned();
        anyhow::Ok(Answer {
            headers: head.headers,
            trailers: trailers.unwrap_or_default(),
            body: body.to_bytes(),
        })
    })?;
    answer.print(call.raw)
}

/// The encoded message with its prefix.
fn message(data: &str) -> anyhow::Result<Bytes> {
    let message = match data.strip_prefix('@') {
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {path}"))?,
        None => hex::decode(data).context("--data is not hexadecimal\nhint: --data @FILE reads a file")?,
    };
    let length = u32::try_from(message.len()).context("the message is longer than gRPC allows")?;
    Ok([&[0], &length.to_be_bytes()[..], &message].concat().into())
}

fn request(call: &Call, body: Bytes) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut request = Request::post(call.method.as_str())
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-road-service", call.service.as_str())
        .header("trave-purpose", call.purpose.as_str())
        .header("trave-legal-basis", call.legal_basis.as_str());
    if let Some(client) = &call.client {
        request = request.header("x-road-client", client.as_str());
    }
    if let Some(user) = &call.user {
        request = request.header("x-road-userid", user);
    }
    request.body(Full::new(body)).context("the call cannot be written")
}

/// A connection to the first door that takes calls of this machine, and of the client if one is named.
async fn connect(config: &Config, call: &Call) -> anyhow::Result<Channel<Full<Bytes>>> {
    let speaks = |agency: &&Agency| match (&call.client, &agency.subsystem) {
        (Some(client), Some(subsystem)) => subsystem.0 == *client,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    // A door whose port the system chose cannot be found from here.
    let found =
        |agency: &&Agency| !matches!(agency.transport(), Ok(AgencyTransport::Loopback(at)) if at.port() == 0);
    let Some(agency) = config.agency.iter().filter(found).find(speaks) else {
        bail!(
            "the configuration has no door without TLS for this call\nhint: a test call needs an [[agency]] on loopback \
             with `subsystem`; through a door with TLS only the agency system itself can call"
        );
    };
    let channel = match agency.transport().map_err(anyhow::Error::msg)? {
        AgencyTransport::Unix(path) => Channel::unix(path).await,
        AgencyTransport::Loopback(address) | AgencyTransport::Tls(address, ..) => {
            Channel::plain(&address.to_string()).await
        }
    };
    channel.context("the security server is not reached\nhint: is it running?")
}

struct Answer {
    headers: HeaderMap,
    trailers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).or_else(|| self.headers.get(name))?.to_str().ok()
    }

    fn print(&self, raw: bool) -> anyhow::Result<ExitCode> {
        let status = self.field("grpc-status").context("the answer is not gRPC")?;
        let said = self.field("grpc-message").map(unescaped).unwrap_or_default();
        let exchange = self.field("trave-exchange-id").unwrap_or("-");
        let messages = messages(&self.body)?;
        let mut out = std::io::stdout().lock();
        if raw {
            eprintln!("status {status} {said}\nexchange {exchange}");
            messages.iter().try_for_each(|message| out.write_all(message)).context("cannot write")?;
        } else {
            writeln!(out, "status {status} {said}\nexchange {exchange}").context("cannot write")?;
            for message in &messages {
                writeln!(out, "answer {}", hex::encode(message)).context("cannot write")?;
            }
        }
        Ok(if status == "0" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Takes the prefixes off.
fn messages(mut body: &[u8]) -> anyhow::Result<Vec<&[u8]>> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        let (prefix, rest) = body.split_first_chunk::<PREFIX>().context("the answer is cut off")?;
        let [_, length @ ..] = *prefix;
        let length = usize::try_from(u32::from_be_bytes(length))?;
        let (message, rest) = rest.split_at_checked(length).context("the answer is cut off")?;
        messages.push(message);
        body = rest;
    }
    Ok(messages)
}

/// A gRPC message with its percent-encoding taken off; control characters are not printed.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_unframed() {
        let framed = message("0a0b").unwrap();
        assert_eq!(framed.as_ref(), [0, 0, 0, 0, 2, 10, 11]);
        assert_eq!(messages(&[&framed[..], &framed].concat()).unwrap(), [[10, 11], [10, 11]]);
        assert!(messages(&framed[..6]).is_err());
        assert!(message("0").is_err());
    }

    #[test]
    fn a_message_is_shown_as_it_was_meant() {
        assert_eq!(unescaped("100%25 f%C3%BCr %1b[31m%zz"), "100% für [31m%zz");
    }
}
