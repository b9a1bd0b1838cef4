//! What a container is made of: the contents of the proof as files, and what became of each part. A function of the proof
//! alone, so that whoever verifies makes them again and compares.

use std::fmt;

use bytes::Bytes;

use super::ContainerError;
use super::archive::{Entry, MAX_ENTRIES};
use super::manifest::extension;
use crate::encoding::decode_canonical;
use crate::identifier::ExchangeId;
use crate::message::{Content, Direction};
use crate::proof::{CallerContextStory, CheckName, ContentStory, Outcome, Proof, Report, Said, said};
use crate::schema::message::{Header, RequestHead, ResponseHead, Trailers};

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    /// It is here, and is the very one.
    Verified,
    /// It is as the exporter sealed it, and nothing else says so: a text for people.
    ExportersWord,
    /// It was erased, and the erasure is recorded.
    Erased,
    /// The exporter does not have it: its policy did not keep it, or not any longer, or its log was restored without keys.
    NotKept,
    /// It is not here: there was none, or it is kept and was left out.
    Absent,
    /// It is not what it should be.
    Mismatch,
    /// Whether it is the very one cannot be told, because something else does not hold.
    CannotTell,
}

impl PartState {
    /// As programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::ExportersWord => "exporters-word",
            Self::Erased => "erased",
            Self::NotKept => "not-kept",
            Self::Absent => "absent",
            Self::Mismatch => "MISMATCH",
            Self::CannotTell => "cannot-tell",
        }
    }
}

/// A part of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartName {
    /// The exporter's signature over the list of files.
    Seal,
    /// The timestamp over that signature.
    Timestamp,
    /// An archive timestamp over all that stands before it, from 1.
    ArchiveTimestamp(usize),
    /// The list of files with their digests.
    Manifest,
    /// A file beside the proof that is not made of it: the reports, the exporter's configuration.
    File(String),
    /// The proof.
    Proof,
    /// Messages of one direction, from the first to the last of these, that share a fate.
    Messages(Direction, u64, u64),
    /// One direction, without any message.
    NoMessages(Direction),
    /// What the caller declared: user, case, person concerned.
    CallerContext,
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seal => f.write_str("seal"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::ArchiveTimestamp(number) => write!(f, "archive-timestamp {number}"),
            Self::Manifest => f.write_str("manifest"),
            Self::File(name) => f.write_str(name),
            Self::Proof => f.write_str("proof"),
            Self::Messages(direction, first, last) if first == last => {
                write!(f, "{} {first}", folder(*direction))
            }
            Self::Messages(direction, first, last) => write!(f, "{} {first}-{last}", folder(*direction)),
            Self::NoMessages(direction) => f.write_str(folder(*direction)),
            Self::CallerContext => f.write_str("caller-context"),
        }
    }
}

/// A part, what became of it, and the files that hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub name: PartName,
    /// What became of it.
    pub state: PartState,
    /// Where it stands in the container.
    pub files: Vec<String>,
}

/// What does not hold of a part, and why.
pub(super) type Wrong = (PartName, PartState, String);

pub(super) fn mismatch(name: PartName, why: impl Into<String>) -> Wrong {
    (name, PartState::Mismatch, why.into())
}

/// The parts of a proof, and the files that its contents make.
pub(super) fn of(proof: &Proof, report: &Report) -> Result<(Vec<Part>, Vec<Entry>), ContainerError> {
    let unreadable = ContainerError::Contents("a head is none, or they would be too many files");
    parts_and_files(proof, report).ok_or(unreadable)
}

fn parts_and_files(proof: &Proof, report: &Report) -> Option<(Vec<Part>, Vec<Entry>)> {
    let said = said(proof).unwrap_or_default();
    let (mut parts, mut files) = (Vec::new(), Vec::new());
    for direction in [Direction::Request, Direction::Response] {
        let messages: Vec<&Said> = said.iter().filter(|message| message.direction == direction).collect();
        if messages.is_empty() {
            parts.push(Part {
                name: PartName::NoMessages(direction),
                state: PartState::Absent,
                files: Vec::new(),
            });
        }
        let content_type = content_type(&messages);
        for run in messages.chunk_by(|one, next| of_content(&one.state) == of_content(&next.state)) {
            let whole = run.len() == messages.len();
            let (first, last) = (run.first()?.index, run.last()?.index);
            let ends = messages.last()?.index;
            let entries = entries((direction, ends), run, whole, extension(content_type.as_deref()))?;
            parts.push(Part {
                name: PartName::Messages(direction, first, last),
                state: of_content(&run.first()?.state),
                files: entries.iter().map(|entry| entry.name.clone()).collect(),
            });
            files.extend(entries);
            if files.len() + parts.len() > MAX_ENTRIES / 2 {
                return None;
            }
        }
    }
    parts.push(Part { name: PartName::CallerContext, state: caller_context(report), files: Vec::new() });
    Some((parts, files))
}

/// The table as it stands in the container: a line for each part, its name, its state and its files.
pub(super) fn table(exchange: &ExchangeId, parts: &[Part]) -> String {
    let mut table = format!("trave container v1\nexchange\t{exchange}\n");
    for part in parts {
        let files = if part.files.is_empty() { "-".to_owned() } else { part.files.join(" ") };
        table.push_str(&format!("{}\t{}\t{files}\n", part.name, part.state.as_str()));
    }
    table
}

fn of_content(story: &ContentStory) -> PartState {
    match story {
        ContentStory::Included(_) => PartState::Verified,
        ContentStory::NotKept => PartState::NotKept,
        ContentStory::Erased => PartState::Erased,
        ContentStory::Withheld => PartState::Absent,
        ContentStory::Mismatch => PartState::Mismatch,
    }
}

fn caller_context(report: &Report) -> PartState {
    let check = report.checks.iter().find(|check| check.name == CheckName::CallerContext);
    if check.is_some_and(|check| matches!(check.outcome, Outcome::Fails(_))) {
        return PartState::Mismatch;
    }
    match report.story.as_ref().map(|story| (&story.caller_context, &story.erased)) {
        Some((CallerContextStory::Included(_), _)) => PartState::Verified,
        Some((CallerContextStory::NotIncluded, Some(_))) => PartState::Erased,
        _ => PartState::Absent,
    }
}

/// The media type that the sender named in its head.
fn content_type(messages: &[&Said]) -> Option<String> {
    let head = messages.first()?.content.as_ref()?.head.clone()?;
    let headers = match messages.first()?.direction {
        Direction::Response => decode_canonical::<ResponseHead>("head", head).ok()?.headers,
        _ => decode_canonical::<RequestHead>("head", head).ok()?.headers,
    };
    let found = headers.into_iter().find(|header| header.name.eq_ignore_ascii_case("content-type"))?;
    String::from_utf8(found.value.to_vec()).ok()
}

const fn folder(direction: Direction) -> &'static str {
    match direction {
        Direction::Response => "response",
        _ => "request",
    }
}

/// Head, body and trailers of messages that follow one another: the body in one piece, as it was sent. A head that does not
/// stand in the first message of its direction, or trailers that do not stand in the last (`ends`), are a file of their own that
/// names the message: whatever a proof holds is in a file. None if a head is none, or if there are more bytes than an
/// archive takes.
fn entries((direction, ends): (Direction, u64), run: &[&Said], whole: bool, end: &str) -> Option<Vec<Entry>> {
    let contents: Vec<&Content> = run.iter().filter_map(|message| message.content.as_ref()).collect();
    let folder = folder(direction);
    let mut entries = Vec::new();
    let of = |message: &&Said| message.content.clone().map(|content| (message.index, content));
    for (index, content) in run.iter().filter_map(of) {
        if let Some(head) = content.head {
            let name = if index == 0 { "head".to_owned() } else { format!("head-{index}") };
            entries.push(Entry::new(format!("{folder}/{name}.txt"), head_of(direction, head)?));
        }
    }
    let body = match contents.as_slice() {
        [one] => one.body.clone(),
        many => many.iter().map(|content| &content.body[..]).collect::<Vec<_>>().concat().into(),
    };
    if !body.is_empty() {
        let name = match (run.first()?.index, run.last()?.index) {
            _ if whole => format!("{folder}/body.{end}"),
            (first, last) => format!("{folder}/body-{first}-{last}.{end}"),
        };
        entries.push(Entry::new(name, body));
    }
    for (index, content) in run.iter().filter_map(of) {
        if let Some(trailers) = content.trailers {
            let trailers = decode_canonical::<Trailers>("trailers", trailers).ok()?;
            let name = if index == ends { "trailers".to_owned() } else { format!("trailers-{index}") };
            entries.push(Entry::new(format!("{folder}/{name}.txt"), lines(&trailers.headers)));
        }
    }
    Some(entries)
}

/// A head as HTTP/1.1 would write it, so that people can read it.
fn head_of(direction: Direction, head: Bytes) -> Option<Vec<u8>> {
    let (first, headers) = match direction {
        Direction::Response => {
            let head: ResponseHead = decode_canonical("head", head).ok()?;
            (head.status.to_string(), head.headers)
        }
        _ => {
            let RequestHead { method, path, query, headers } = decode_canonical("head", head).ok()?;
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            (format!("{method} {path}{query}"), headers)
        }
    };
    Some([visible(first.as_bytes()), "\n".into(), lines(&headers)].concat().into_bytes())
}

fn lines(headers: &[Header]) -> String {
    headers
        .iter()
        .map(|header| format!("{}: {}\n", visible(header.name.as_bytes()), visible(&header.value)))
        .collect()
}

/// Bytes on one line: what is no visible ASCII character, and the backslash, as `\xNN`.
fn visible(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\x5c"),
            b' '..=b'~' => text.push(char::from(*byte)),
            other => text.push_str(&format!("\\x{other:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn whatever_a_message_holds_is_in_a_file_of_its_own_name() {
        let head = |status| Some(Bytes::from(ResponseHead { status, headers: vec![] }.encode_to_vec()));
        let trailer = Header { name: "grpc-status".into(), value: Bytes::from_static(b"0") };
        let trailers = || Some(Bytes::from(Trailers { headers: vec![trailer.clone()] }.encode_to_vec()));
        let said = |index, head, trailers| Said {
            direction: Direction::Response,
            index,
            state: ContentStory::NotKept,
            content: Some(Content { head, body: Bytes::from_static(b"x"), trailers }),
        };
        let usual = [said(0, head(200), None), said(1, None, None), said(2, None, trailers())];
        // A head in the middle, and trailers before the end: no sender of ours makes these, and another may.
        let odd = [said(0, head(200), trailers()), said(1, head(201), None), said(2, None, trailers())];
        let names = |run: &[Said]| {
            let run: Vec<_> = run.iter().collect();
            let entries = entries((Direction::Response, 2), &run, true, "bin").unwrap();
            entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        let file = |name: &str| format!("response/{name}");
        assert_eq!(names(&usual), ["head.txt", "body.bin", "trailers.txt"].map(file));
        let all = ["head.txt", "head-1.txt", "body.bin", "trailers-0.txt", "trailers.txt"];
        assert_eq!(names(&odd), all.map(file));
    }

    #[test]
    fn no_header_writes_a_line_of_its_own() {
        let header =
            |name: &str, value: &'static [u8]| Header { name: name.into(), value: Bytes::from_static(value) };
        let headers = [header("a", b"x\r\nb: y"), header("grpc-status-details-bin", b"\x00\xff\\")];
        assert_eq!(lines(&headers), "a: x\\x0d\\x0ab: y\ngrpc-status-details-bin: \\x00\\xff\\x5c\n");
    }
}
