//! Identifiers of an existing X-Road instance, as a bridge names them: not ours, and wider than ours.
//!
//! X-Road allows almost any character in a part. Here each part is kept as a URL writes it (RFC 3986): letters, digits and
//! `. _ - ~` as they are, every other character percent-encoded with capital digits. So one identifier has one spelling,
//! which is safe to show, to compare, and to send as it stands.

use std::fmt;
use std::str::FromStr;

use super::IdentifierError;
use crate::path::decoded;

/// Longest part of a foreign identifier, in bytes of its spelling.
const MAX_PART: usize = 255;
/// Longest foreign identifier, in bytes: two fit into a manifest beside all else.
const MAX_LEN: usize = 640;

macro_rules! x_road {
    ($(#[$doc:meta])* $name:ident, $what:literal, $parts:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The identifier in its one spelling.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The identifier in its one spelling, whichever of several its sender chose: parts may be encoded more than
            /// they must be, or not at all.
            pub fn of(text: &str) -> Result<Self, IdentifierError> {
                spelling($what, $parts, text).map(|spelling| Self(spelling.into()))
            }
        }

        impl FromStr for $name {
            type Err = IdentifierError;

            /// Accepts the one spelling alone.
            fn from_str(text: &str) -> Result<Self, IdentifierError> {
                match Self::of(text)? {
                    identifier if identifier.as_str() == text => Ok(identifier),
                    _ => Err(IdentifierError::Spelling { what: $what }),
                }
            }
        }

        shown_as_written!($name);
    };
}

x_road!(
    /// A client of an X-Road instance: `INSTANCE/CLASS/MEMBER[/SUBSYSTEM]`.
    XRoadClientId, "X-Road client", &[3, 4]
);
x_road!(
    /// A service of an X-Road instance: `INSTANCE/CLASS/MEMBER/SUBSYSTEM/SERVICE`.
    XRoadServiceId, "X-Road service", &[5]
);
x_road!(
    /// A security server of an X-Road instance: `INSTANCE/CLASS/MEMBER/SERVER`.
    XRoadServerId, "X-Road security server", &[4]
);

fn spelling(what: &'static str, parts: &[usize], text: &str) -> Result<String, IdentifierError> {
    let found = text.split('/').count();
    if !parts.contains(&found) {
        return Err(IdentifierError::Parts { what, expected: *parts.last().unwrap_or(&0), found });
    }
    let mut whole = String::new();
    for (at, part) in text.split('/').enumerate() {
        let refused = IdentifierError::XRoadPart { what, position: at + 1 };
        let Some(part) = part_of(part) else { return Err(refused) };
        if at > 0 {
            whole.push('/');
        }
        whole.push_str(&part);
    }
    match whole.len() {
        ..=MAX_LEN => Ok(whole),
        _ => Err(IdentifierError::Spelling { what }),
    }
}

/// One part in its one spelling. None where X-Road itself has no such identifier (slashes, colons, semicolons, percent signs,
/// control characters), where it would be a step in a path, or where a reader would not see what stands there.
fn part_of(written: &str) -> Option<String> {
    if written.len() > 3 * MAX_PART {
        return None;
    }
    // What is not encoded at all, as a person writes it, is read as it stands.
    let plain = match written.is_ascii() && !written.contains(' ') {
        true => decoded(written).ok()?,
        false if written.contains('%') => return None,
        false => written.to_owned(),
    };
    let unfit = |c: char| {
        c.is_control() || matches!(c, '/' | '\\' | ':' | ';' | '%') || (!c.is_ascii() && !c.is_alphanumeric())
    };
    if plain.is_empty() || plain == "." || plain == ".." || plain.contains(unfit) {
        return None;
    }
    let mut spelling = String::with_capacity(plain.len());
    for byte in plain.bytes() {
        match byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'~') {
            true => spelling.push(char::from(byte)),
            false => spelling.push_str(&format!("%{byte:02X}")),
        }
    }
    (spelling.len() <= MAX_PART).then_some(spelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_identifier_has_one_spelling() {
        for (written, spelling) in [
            ("EE/GOV/70000310/dhx.adit", "EE/GOV/70000310/dhx.adit"),
            ("FI/COM/1234567-8/Service_1", "FI/COM/1234567-8/Service_1"),
            ("FI/COM/12 34/%61", "FI/COM/12%2034/a"),
            ("EE/GOV/%c3%b5igus", "EE/GOV/%C3%B5igus"),
            ("EE/GOV/õigus", "EE/GOV/%C3%B5igus"),
        ] {
            let client = XRoadClientId::of(written).unwrap();
            assert_eq!(client.as_str(), spelling);
            assert_eq!(spelling.parse::<XRoadClientId>().unwrap(), client);
            if written != spelling {
                assert!(written.parse::<XRoadClientId>().is_err(), "{written} is another spelling");
            }
        }
        assert!(XRoadServiceId::of("EE/GOV/1/sub/rr-v1").is_ok());
        assert!(XRoadServerId::of("EE/GOV/1/ss1").is_ok());
    }

    #[test]
    fn what_is_no_foreign_identifier_is_refused() {
        let long = format!("EE/GOV/{}", "x".repeat(256));
        let whole = format!("{0}/{0}/{0}", "x".repeat(255));
        for text in [
            "",
            "EE",
            "EE/GOV",
            "EE/GOV/1/a/b",
            "EE//1",
            "EE/GOV/..",
            "EE/GOV/.",
            "EE/GOV/%2e%2e",
            "EE/GOV/%2F",
            "EE/GOV/a%0d%0ab",
            "EE/GOV/a\r\nb",
            "EE/GOV/%",
            "EE/GOV/%zz",
            "EE/GOV/a;b",
            "EE/GOV/a:b",
            "EE/GOV/%25",
            "EE/GOV/a\\b",
            "EE/GOV/%e2%80%ae",
            "EE/GOV/\u{202e}",
            "EE/GOV/%ff",
            "EE/GOV/ö%41",
            &long,
            &whole,
        ] {
            assert!(XRoadClientId::of(text).is_err(), "{text:?}");
        }
        assert!(XRoadServiceId::of("EE/GOV/1/sub").is_err() && XRoadServerId::of("EE/GOV/1").is_err());
    }
}
