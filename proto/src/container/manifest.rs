//! The list of the container's files with their digests: `ASiCManifest` (ETSI EN 319 162-1 annex A.4), which the seal is
//! over. Written in one way and never parsed: whoever verifies writes it again of the files and compares.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::archive::Entry;
use super::{MIMETYPE_NAME, SIGNATURE_NAME};
use crate::digest::Digest;

/// The manifest over all of `entries` but the one that names the container's media type.
pub(super) fn of(entries: &[Entry]) -> Vec<u8> {
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<asic:ASiCManifest \
         xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n\
         <asic:SigReference URI=\"{SIGNATURE_NAME}\" MimeType=\"application/pkcs7-signature\"/>\n"
    );
    for entry in entries.iter().filter(|entry| entry.name != MIMETYPE_NAME) {
        xml.push_str(&line(entry));
    }
    xml.push_str("</asic:ASiCManifest>\n");
    xml.into_bytes()
}

/// What the list says of one file.
pub(super) fn line(entry: &Entry) -> String {
    // Names and media types are made here, and hold nothing that XML would have to escape.
    format!(
        "<asic:DataObjectReference URI=\"{}\" MimeType=\"{}\"><ds:DigestMethod \
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
