//! One canonical path: what is decided on is what is forwarded, and what different programs could read differently is
//! refused.
//!
//! Two spellings of one path become one (RFC 3986, section 6.2.2): an encoded letter is decoded, hexadecimal digits are
//! capital. Nothing that would need a judgement is repaired.

use std::fmt::Write;

/// Longest path and query together, in bytes.
pub const MAX_TARGET: usize = 16 * 1024;

/// A path within a service: empty, or beginning with a slash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Canonical(String);

impl Canonical {
    /// The canonical form of `path`, which is empty or begins with a slash; else why there is none.
    pub fn of(path: &str) -> Result<Self, &'static str> {
        if path.len() > MAX_TARGET {
            return Err("the path is too long");
        }
        let Some(rest) = path.strip_prefix('/') else {
            return if path.is_empty() { Ok(Self(String::new())) } else { Err("the path has no slash") };
        };
        let mut canonical = String::with_capacity(path.len());
        let count = rest.split('/').count();
        for (at, segment) in rest.split('/').enumerate() {
            // A slash at the end is a path of its own; anywhere else an empty segment is read differently.
            if segment.is_empty() && at + 1 < count {
                return Err("the path has two slashes in a row");
            }
            canonical.push('/');
            canonical.push_str(&segment_of(segment)?);
        }
        Ok(Self(canonical))
    }

    /// The path, as it is decided on and forwarded.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One segment, percent-decoded: an identifier in a path.
pub fn decoded(segment: &str) -> Result<String, &'static str> {
    let bytes = percent_decoded(segment)?;
    String::from_utf8(bytes).map_err(|_| "the path is not UTF-8")
}

/// Whether a query can be passed on as it is: what a URI may hold (RFC 3986, section 3.4), and what browsers send beside
/// it.
pub fn check_query(query: &str) -> Result<(), &'static str> {
    if query.len() > MAX_TARGET {
        return Err("the query is too long");
    }
    let fits = |b: u8| (0x21..0x7f).contains(&b) && !matches!(b, b'#' | b'"' | b'<' | b'>' | b'\\');
    match query.bytes().all(fits) {
        true => Ok(()),
        false => Err("the query has characters that must be percent-encoded"),
    }
}

fn segment_of(segment: &str) -> Result<String, &'static str> {
    let bytes = percent_decoded(segment)?;
    if bytes.iter().any(|b| matches!(b, b'/' | b'\\')) {
        return Err("the path has an encoded slash or a backslash");
    }
    if bytes.iter().any(|b| *b < 0x20 || *b == 0x7f) {
        return Err("the path has control characters");
    }
    if std::str::from_utf8(&bytes).is_err() {
        return Err("the path is not UTF-8");
    }
    // Some servers cut off what follows a semicolon before they look for dots.
    let name = bytes.split(|b| *b == b';').next().unwrap_or_default();
    if matches!(name, b"." | b"..") {
        return Err("the path has a segment of dots");
    }
    let mut canonical = String::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, encoded) = match (first, after) {
            (b'%', [high, low, ..]) => (hex(*high) << 4 | hex(*low), true),
            _ => (*first, false),
        };
        rest = if encoded { &after[2..] } else { after };
        match (encoded, is_unreserved(byte)) {
            (true, false) => _ = write!(canonical, "%{byte:02X}"),
            _ => canonical.push(char::from(byte)),
        }
    }
    Ok(canonical)
}

/// The bytes of a segment. What is neither a character of a path (RFC 3986, section 3.3) nor encoded is refused.
fn percent_decoded(segment: &str) -> Result<Vec<u8>, &'static str> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'%', [high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex(*high) << 4 | hex(*low));
                rest = &after[2..];
            }
            (b'%', _) => return Err("the path has a percent sign that begins no encoding"),
            (b'\\', _) => return Err("the path has an encoded slash or a backslash"),
            (byte, _) if is_unreserved(*byte) || is_reserved(*byte) => {
                bytes.push(*byte);
                rest = after;
            }
            _ => return Err("the path has characters that must be percent-encoded"),
        }
    }
    Ok(bytes)
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a segment may hold unencoded beside (RFC 3986, section 3.3).
fn is_reserved(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// The value of a hexadecimal digit that was checked.
fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling() {
        for (path, canonical) in [
            ("", ""),
            ("/", "/"),
            ("/v1/personen/4711", "/v1/personen/4711"),
            ("/v1/%70ersonen/", "/v1/personen/"),
            ("/a%2eb/%7euser", "/a.b/~user"),
            ("/stra%c3%9fe", "/stra%C3%9Fe"),
            ("/a%20b;v=1,2/(x)", "/a%20b;v=1,2/(x)"),
            ("/100%25", "/100%25"),
            ("/a%3Ab", "/a%3Ab"),
        ] {
            let once = Canonical::of(path).unwrap();
            assert_eq!(once.as_str(), canonical);
            assert_eq!(Canonical::of(canonical).unwrap(), once, "{path} is not at rest");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for path in [
            "a",
            "//",
            "/a//b",
            "/a/../b",
            "/a/..",
            "/./a",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/..;x/b",
            "/..%3bx/b",
            "/a%00b",
            "/a%0ab",
            "/%ff",
            "/%c3",
            "/%c0%ae",
            "/%",
            "/%4",
            "/%zz",
            "/a b",
            "/a\"b",
            "/ü",
            "/a|b",
            "/a?b",
            "/a#b",
        ] {
            assert!(Canonical::of(path).is_err(), "{path}");
        }
        assert!(Canonical::of(&"/a".repeat(MAX_TARGET)).is_err());
    }

    #[test]
    fn a_query_passes_as_it_is_or_not_at_all() {
        for query in ["", "a=1&b=%2F..", "x=a/b?c", "f={a|b}", "%zz"] {
            assert!(check_query(query).is_ok(), "{query}");
        }
        for query in ["a b", "ü", "a\tb", "a#b"] {
            assert!(check_query(query).is_err(), "{query}");
        }
    }
}
