//! The lists of the container's files with their digests: `ASiCManifest` (ETSI EN 319 162-1 annex A.4), which the seal is
//! over, and `ASiCArchiveManifest` (annex A.7), which an archive timestamp is over. Written in one way and never parsed:
//! whoever verifies writes them again of the files and compares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::archive::Entry;
use super::{MIMETYPE_NAME, SIGNATURE_NAME, archive_name, token_name};
use crate::digest::Digest;

/// The manifest over all of `entries` but the one that names the container's media type, which the seal signs.
pub(super) fn of(entries: &[Entry]) -> Vec<u8> {
    list(entries, (SIGNATURE_NAME, "application/pkcs7-signature"), None)
}

/// The manifest of archive timestamp `number` (annex A.7), which the token of that number is over: `entries` are all that stand
/// before it, the earlier archive timestamps among them.
pub(super) fn of_archive(entries: &[Entry], number: usize) -> Vec<u8> {
    let before = archive_name(number.saturating_sub(1));
    list(entries, (&token_name(number), "application/vnd.etsi.timestamp-token"), Some(&before))
}

fn list(entries: &[Entry], (by, media_type): (&str, &str), root: Option<&str>) -> Vec<u8> {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<asic:ASiCManifest \
         xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n\
         <asic:SigReference URI=\"{by}\" MimeType=\"{media_type}\"/>\n"
    );
    for entry in entries.iter().filter(|entry| entry.name != MIMETYPE_NAME) {
        // The manifest before is the one to begin with, for whoever follows the chain back.
        let is_root = root == Some(&entry.name);
        xml.push_str(&reference(entry, if is_root { " Rootfile=\"true\"" } else { "" }));
    }
    xml.push_str("</asic:ASiCManifest>\n");
    xml.into_bytes()
}

/// What the seal's list says of one file.
pub(super) fn line(entry: &Entry) -> String {
    reference(entry, "")
}

fn reference(entry: &Entry, attribute: &str) -> String {
    // Names and media types are made here, and hold nothing that XML would have to escape.
    format!(
        "<asic:DataObjectReference URI=\"{}\" MimeType=\"{}\"{attribute}><ds:DigestMethod \
         Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/><ds:DigestValue>{}</ds:DigestValue>\
         </asic:DataObjectReference>\n",
        entry.name,
        media_type(&entry.name),
        STANDARD.encode(Digest::of(&entry.data)),
    )
}

/// The media type by the name's end.
fn media_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("txt") => "text/plain",
        Some("json") => "application/json",
        Some("xml") => "application/xml",
        Some("csv") => "text/csv",
        Some("pdf") => "application/pdf",
        Some("p7s") => "application/pkcs7-signature",
        Some("tst") => "application/vnd.etsi.timestamp-token",
        _ => "application/octet-stream",
    }
}

/// The end of a body's name by the media type that its sender named: of a few that open nothing but text and pages.
pub(super) fn extension(content_type: Option<&str>) -> &'static str {
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    match essence.to_ascii_lowercase().as_str() {
        "application/json" => "json",
        other if other.starts_with("application/") && other.ends_with("+json") => "json",
        "application/xml" | "text/xml" => "xml",
        "text/plain" => "txt",
        "text/csv" => "csv",
        "application/pdf" => "pdf",
        _ => "bin",
    }
}
