//! Whom an exchange concerns: read from the caller context that the caller declares, or from where the service's provider
//! says that its requests name the person. What is read goes into the log as a pseudonym, and nowhere else.
//!
//! A request is not trusted: depth, size and number are bounded, and what cannot be read strictly names nobody.

use std::sync::Arc;

use bytes::Bytes;
use trave_message_log::{MAX_PERSONS, Person};
use trave_proto::message::CallerContext;
use trave_proto::signature::Parts;

use crate::config;

/// Where the requests of a service name the person.
#[derive(Debug)]
pub(crate) struct Subject {
    scheme: String,
    header: bool,
    fields: Vec<Vec<u32>>,
    pointers: Vec<String>,
    required: bool,
}

/// What was looked for and found, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A person was named in the caller context.
    Header,
    /// A person was named in the request.
    Request,
    /// The request is not of a form in which a person could be found.
    Unreadable,
    /// Nobody was named.
    Nobody,
}

impl Event {
    /// As the metrics name it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Request => "request",
            Self::Unreadable => "unreadable",
            Self::Nobody => "nobody",
        }
    }
}

/// A request that must name a person, and does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request names no person where this service's requests must")]
pub(crate) struct Missing;

/// The largest request in which a JSON pointer is followed, in bytes: what is read of it takes many times that.
const MAX_JSON: usize = 256 << 10;

impl Subject {
    /// As the configuration says, which was checked.
    pub(crate) fn new(configured: &config::Subject) -> Self {
        Self {
            scheme: configured.scheme.clone(),
            header: configured.header,
            fields: configured.fields().unwrap_or_default(),
            pointers: configured.pointers().to_vec(),
            required: configured.required,
        }
    }

    /// Persons that a request body names, and whether it could be read.
    fn in_body(&self, body: &[u8]) -> Result<Vec<Person>, Unreadable> {
        let mut values = Vec::new();
        if !self.fields.is_empty() {
            let message = grpc_message(body)?;
            self.fields.iter().try_for_each(|path| follow(message, path, &mut values))?;
        }
        if !self.pointers.is_empty() {
            if body.len() > MAX_JSON {
                return Err(Unreadable);
            }
            let json: serde_json::Value = serde_json::from_slice(body).map_err(|_| Unreadable)?;
            for found in self.pointers.iter().filter_map(|pointer| json.pointer(pointer)) {
                scalars(found, &mut values)?;
            }
        }
        values.iter().map(|value| Person::new(&self.scheme, value).map_err(|_| Unreadable)).collect()
    }
}

/// Whatever stands there, no person can be read from it. Nothing of it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unreadable;

/// Looks for the person in the messages of one request, until its body has begun.
#[derive(Debug, Clone)]
pub(crate) struct Seeking {
    subject: Arc<Subject>,
    /// Whether the first message that has a body was looked at.
    looked: bool,
    found: bool,
}

impl Seeking {
    pub(crate) fn new(subject: Arc<Subject>) -> Self {
        Self { subject, looked: false, found: false }
    }

    /// The persons that this message of the request names; `last`: no other follows.
    ///
    /// # Errors
    /// If the service demands a person and it is certain now that none is named.
    pub(crate) fn look(
        &mut self,
        parts: &Parts,
        last: bool,
        mut count: impl FnMut(Event),
    ) -> Result<Vec<Person>, Missing> {
        if self.looked {
            return Ok(Vec::new());
        }
        let mut persons = Vec::new();
        if self.subject.header
            && let Some((context, _)) = &parts.caller_context
        {
            persons = declared(Some(context), &mut count);
        }
        let body = &parts.content.body;
        if !body.is_empty() || last {
            self.looked = true;
            match self.subject.in_body(body) {
                _ if body.is_empty() => {}
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    count(Event::Request);
                    persons.extend(found);
                }
                Err(Unreadable) => count(Event::Unreadable),
            }
        }
        persons.dedup();
        persons.truncate(MAX_PERSONS);
        self.found |= !persons.is_empty();
        if self.looked && !self.found {
            count(Event::Nobody);
            if self.subject.required {
                return Err(Missing);
            }
        }
        Ok(persons)
    }
}

/// The person that the caller declares, if one is.
pub(crate) fn declared(context: Option<&Bytes>, mut count: impl FnMut(Event)) -> Vec<Person> {
    let Some(Ok(context)) = context.map(|context| CallerContext::decode(context)) else { return Vec::new() };
    if context.subject.is_empty() {
        return Vec::new();
    }
    let person = Person::parse(&context.subject);
    count(if person.is_ok() { Event::Header } else { Event::Unreadable });
    person.into_iter().collect()
}

/// The first message of a gRPC body, if it is whole and not compressed (gRPC over HTTP/2, "Length-Prefixed-Message").
fn grpc_message(body: &[u8]) -> Result<&[u8], Unreadable> {
    let ([0, length @ ..], rest) = body.split_first_chunk::<5>().ok_or(Unreadable)? else {
        return Err(Unreadable);
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Unreadable)?;
    rest.get(..length).ok_or(Unreadable)
}

/// Follows field numbers through a message of unknown schema (Protocol Buffers, "Encoding"), to texts and whole numbers.
/// As deep as the path is long, and each level is read once.
fn follow(mut message: &[u8], path: &[u32], values: &mut Vec<String>) -> Result<(), Unreadable> {
    let Some((wanted, deeper)) = path.split_first() else { return Ok(()) };
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let number = u32::try_from(key >> 3).map_err(|_| Unreadable)?;
        if number == 0 || number > MAX_FIELD {
            return Err(Unreadable);
        }
        let (here, leaf) = (number == *wanted, deeper.is_empty());
        match key & 7 {
            0 => {
                let value = varint(&mut message)?;
                if here {
                    let text = leaf.then(|| value.to_string()).ok_or(Unreadable)?;
                    keep(text, values)?;
                }
            }
            1 => _ = take(&mut message, 8)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).map_err(|_| Unreadable)?;
                let value = take(&mut message, length)?;
                match (here, leaf) {
                    (true, true) => {
                        let text = std::str::from_utf8(value).map_err(|_| Unreadable)?;
                        keep(text.to_owned(), values)?;
                    }
                    (true, false) => follow(value, deeper, values)?,
                    (false, _) => {}
                }
            }
            5 => _ = take(&mut message, 4)?,
            // Groups have not been written for many years.
            _ => return Err(Unreadable),
        }
    }
    Ok(())
}

/// Largest field number.
const MAX_FIELD: u32 = (1 << 29) - 1;

fn varint(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Unreadable)?;
        *bytes = rest;
        // The tenth byte has room for one bit.
        if shift == 63 && *byte > 1 {
            return Err(Unreadable);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Unreadable> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Unreadable)?;
    *bytes = rest;
    Ok(taken)
}

fn keep(value: String, values: &mut Vec<String>) -> Result<(), Unreadable> {
    if value.is_empty() {
        return Ok(());
    }
    // Who names more than can be kept names nobody: none is left out unseen.
    if values.len() == MAX_PERSONS {
        return Err(Unreadable);
    }
    values.push(value);
    Ok(())
}

/// A text or whole number, or a list of these.
fn scalars(found: &serde_json::Value, values: &mut Vec<String>) -> Result<(), Unreadable> {
    use serde_json::Value;
    match found {
        Value::Null => Ok(()),
        Value::String(text) => keep(text.clone(), values),
        Value::Number(number) if number.is_u64() || number.is_i64() => keep(number.to_string(), values),
        Value::Array(list) => list.iter().try_for_each(|one| match one {
            Value::Array(_) => Err(Unreadable),
            one => scalars(one, values),
        }),
        _ => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(value: &str) -> Person {
        Person::new("id", value).unwrap()
    }

    fn subject(fields: &[&[u32]], pointers: &[&str]) -> Subject {
        Subject {
            scheme: "id".into(),
            header: false,
            fields: fields.iter().map(|path| path.to_vec()).collect(),
            pointers: pointers.iter().map(|&pointer| pointer.into()).collect(),
            required: false,
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    #[test]
    fn a_field_path_is_followed_without_a_schema() {
        // 1: { 2: "4711", 3: 12 }, 4: fixed64, 5: fixed32, 1: { 2: "4712" }
        let inner = |id: &str| [&[0x12, id.len() as u8][..], id.as_bytes(), &[0x18, 12]].concat();
        let one = |id: &str| [&[0x0a, inner(id).len() as u8][..], &inner(id)].concat();
        let message = [&one("4711")[..], &[0x21; 9], &[0x2d; 5], &one("4712")].concat();
        let found = |path: &[u32]| subject(&[path], &[]).in_body(&framed(&message));
        assert_eq!(found(&[1, 2]), Ok(vec![person("4711"), person("4712")]));
        assert_eq!(found(&[1, 3]), Ok(vec![person("12"), person("12")]));
        assert_eq!((found(&[2]), found(&[1, 9])), (Ok(vec![]), Ok(vec![])));
        assert_eq!(found(&[1, 3, 1]), Err(Unreadable), "a number has no fields");
        assert_eq!(found(&[1]), Err(Unreadable), "a message is no text");
        let both = subject(&[&[1, 2], &[1, 3]], &[]).in_body(&framed(&one("1")));
        assert_eq!(both, Ok(vec![person("1"), person("12")]));
    }

    #[test]
    fn what_is_malformed_names_nobody() {
        let found = |body: &[u8]| subject(&[&[1, 2]], &[]).in_body(body);
        for (body, why) in [
            (framed(&[0x0a]), "no length"),
            (framed(&[0x0a, 5, 0x12, 1, b'x']), "longer than the message"),
            (framed(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), "longer than memory"),
            (framed(&[0x0b, 0x0c]), "groups"),
            (framed(&[0x02, 0]), "field number 0"),
            (framed(&[0xff; 12]), "a number without end"),
            (framed(&[0x0a, 3, 0x12, 1, 0xff]), "no UTF-8"),
            (vec![1, 0, 0, 0, 0], "compressed"),
            (vec![0, 0, 0, 0, 9, 1], "cut off"),
            (vec![0, 0], "no frame"),
        ] {
            assert_eq!(found(&body), Err(Unreadable), "{why}");
        }
        let many = [0x0a, 3, 0x12, 1, b'x'].repeat(MAX_PERSONS + 1);
        assert_eq!(found(&framed(&many)), Err(Unreadable));
        assert_eq!(found(&framed(&many[5..])).unwrap().len(), MAX_PERSONS);
        let long = [&[0x0a, 0xff, 0x03, 0x12, 0xfc, 0x03][..], &[b'x'; 508]].concat();
        assert_eq!(found(&framed(&long)), Err(Unreadable), "longer than an identifier");
    }

    #[test]
    fn a_pointer_is_followed_through_json() {
        let found = |pointer: &str, body: &str| subject(&[], &[pointer]).in_body(body.as_bytes());
        let body = r#"{"person": {"id": "4711", "nr": 12, "a/b": ["1", 2], "x": 1.5, "deep": [[1]]}}"#;
        assert_eq!(found("/person/id", body), Ok(vec![person("4711")]));
        assert_eq!(found("/person/nr", body), Ok(vec![person("12")]));
        assert_eq!(found("/person/a~1b", body), Ok(vec![person("1"), person("2")]));
        assert_eq!(found("/person/none", body), Ok(vec![]));
        for pointer in ["/person", "/person/x", "/person/deep"] {
            assert_eq!(found(pointer, body), Err(Unreadable), "{pointer}");
        }
        assert_eq!(found("/a", &"[".repeat(100_000)), Err(Unreadable), "deeply nested");
        assert_eq!(found("/a", &format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_JSON))), Err(Unreadable));
        assert_eq!(found("/a", "{\"a\":"), Err(Unreadable));
    }
}
