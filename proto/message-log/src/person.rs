//! How a person is named, so that two spellings of one identifier are one person, and two persons are never one.
//!
//! The canonical form (version 1) of an identifier, which alone is ever put through the key of a period:
//! - *Scheme*: what numbers or names these are, such as `steuer-id`: 1 to 32 of `a` to `z`, `0` to `9` and `-`, beginning
//!   with a letter. Identifiers of two schemes are two persons.
//! - *Value*: Unicode normalisation form C (UAX #15); white space at both ends is left out, and each stretch of it inside
//!   is one blank; no control characters; 1 to 256 bytes.
//! - A value of digits and blanks alone loses its blanks: `12 345 678 901` is `12345678901`.
//! - A value of hexadecimal digits and hyphens alone, with letters of one case, is written with capitals: that is how the
//!   same UUID is printed by two programs. Where both cases stand in it, or other letters, case may tell two persons apart,
//!   and nothing is changed.

use std::fmt;

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// The identifier of a person, in its canonical form. It shows itself nowhere, and is gone from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    scheme: String,
    value: Zeroizing<String>,
}

/// Why something is no identifier of a person. It does not tell the identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PersonError {
    /// The scheme is not of its form.
    #[error("the scheme is not 1 to {MAX_SCHEME} of a-z, 0-9 and hyphen, beginning with a letter")]
    Scheme,
    /// There is nothing in it.
    #[error("the identifier is empty")]
    Empty,
    /// It is too long.
    #[error("the identifier is longer than {MAX_VALUE} bytes")]
    TooLong,
    /// It has control characters.
    #[error("the identifier has control characters in it")]
    Control,
}

/// Most bytes of a scheme.
const MAX_SCHEME: usize = 32;
/// Most bytes of a value.
const MAX_VALUE: usize = 256;
/// The scheme of an identifier that is declared without one.
pub const PLAIN_SCHEME: &str = "id";

impl Person {
    /// The person with this identifier in this scheme.
    pub fn new(scheme: &str, value: &str) -> Result<Self, PersonError> {
        if !is_scheme(scheme) {
            return Err(PersonError::Scheme);
        }
        Ok(Self { scheme: scheme.to_owned(), value: canonical(value)? })
    }

    /// Reads `scheme:value`; what has no scheme is of [`PLAIN_SCHEME`].
    pub fn parse(text: &str) -> Result<Self, PersonError> {
        match text.split_once(':') {
            Some((scheme, value)) if is_scheme(scheme) => Self::new(scheme, value),
            _ => Self::new(PLAIN_SCHEME, text),
        }
    }

    /// Its scheme.
    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Its canonical value.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }
}

impl std::hash::Hash for Person {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.scheme.as_str(), self.value.as_str()).hash(state);
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Person(hidden)")
    }
}

/// Whether this is the name of a scheme.
pub fn is_scheme(scheme: &str) -> bool {
    scheme.len() <= MAX_SCHEME
        && scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn canonical(value: &str) -> Result<Zeroizing<String>, PersonError> {
    // Before anything is made of it: what is normalised can be a few times as long, and no more.
    if value.len() > 4 * MAX_VALUE {
        return Err(PersonError::TooLong);
    }
    let normal: Zeroizing<String> = Zeroizing::new(value.nfc().collect());
    let mut text = Zeroizing::new(String::with_capacity(normal.len()));
    for word in normal.split_whitespace() {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    if text.is_empty() {
        return Err(PersonError::Empty);
    }
    if text.chars().any(char::is_control) {
        return Err(PersonError::Control);
    }
    if text.bytes().all(|b| b.is_ascii_digit() || b == b' ') {
        text.retain(|c| c != ' ');
    }
    let hexadecimal = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if hexadecimal && !text.bytes().any(|b| b.is_ascii_uppercase()) {
        text.make_ascii_uppercase();
    }
    if text.len() > MAX_VALUE { Err(PersonError::TooLong) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_are_one_person() {
        for (one, other) in [
            ("steuer-id:12 345 678 901", "steuer-id:12345678901"),
            ("steuer-id: 12345678901\t", "steuer-id:12345678901"),
            ("uuid:0f8fad5b-d9cb-469f-a165-70867728950e", "uuid:0F8FAD5B-D9CB-469F-A165-70867728950E"),
            ("name:Ju\u{308}rgen  Müller", "name:J\u{fc}rgen Mu\u{308}ller"),
            ("12345", "id:12345"),
        ] {
            assert_eq!(Person::parse(one), Person::parse(other), "{one}");
        }
    }

    #[test]
    fn two_persons_are_never_one() {
        for (one, other) in [
            ("steuer-id:12345678901", "12345678901"),
            ("a:bc", "ab:c"),
            ("eidas:DE/SE/aBcd-12", "eidas:DE/SE/AbCD-12"),
            ("x:aBcD", "x:abcd"),
            ("x:HRB 12", "x:HRB 1 2"),
            ("x:1-2", "x:12"),
        ] {
            assert_ne!(Person::parse(one).unwrap(), Person::parse(other).unwrap(), "{one}");
        }
    }

    #[test]
    fn what_is_no_identifier_is_refused_and_not_told() {
        for (text, why) in [
            ("", PersonError::Empty),
            (" \t", PersonError::Empty),
            ("a\u{7}b", PersonError::Control),
            (&"x".repeat(257), PersonError::TooLong),
            (&"x".repeat(100_000), PersonError::TooLong),
        ] {
            assert_eq!(Person::parse(text).unwrap_err(), why);
        }
        assert_eq!(Person::new("Steuer ID", "1").unwrap_err(), PersonError::Scheme);
        assert_eq!(format!("{:?}", Person::parse("secret").unwrap()), "Person(hidden)");
    }
}
