//! What a caller calls an exchange by: its own message id, and the case for which it asks. Both are of the caller context,
//! which is encrypted and may be erased, and either may name a person (`Müller, Hans: Umzug`). So the log keeps neither in
//! clear where it can be searched for, but a pseudonym of each, under the key of its month, as it does of persons
//! ([`crate::pseudonyms`]): whoever knows the message id or the case finds the exchange, and nobody can list them.
//!
//! The canonical form (version 1), which alone is ever put through the key of a period:
//! - *Message id* (`x-road-id`): the bytes as they came. It is a program's.
//! - *Case* (`x-road-issue`): Unicode normalisation form C (UAX #15); white space at both ends is left out, and each stretch
//!   of it inside is one blank: people write it.

use std::fmt;

use trave_proto::identifier::ExchangeId;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// What a caller calls an exchange by, in its canonical form. It shows itself nowhere, and is gone from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    kind: ReferenceKind,
    value: Zeroizing<String>,
}

/// What a reference is. The numbers are put through the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ReferenceKind {
    /// The caller's own message id.
    MessageId = 1,
    /// The case or file number.
    Case = 2,
}

/// Most bytes of a reference, in either form: what a header may have.
pub const MAX_REFERENCE: usize = 1_024;
/// Most references of one message.
pub(crate) const MAX_REFERENCES: usize = 2;

impl Reference {
    /// The caller's own message id; none if it is empty or too long.
    pub fn message_id(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= MAX_REFERENCE;
        fits.then(|| Self { kind: ReferenceKind::MessageId, value: Zeroizing::new(text.to_owned()) })
    }

    /// The case or file number; none if it is empty, too long, or has control characters.
    pub fn case(text: &str) -> Option<Self> {
        if text.len() > MAX_REFERENCE {
            return None;
        }
        let normal: Zeroizing<String> = Zeroizing::new(text.nfc().collect());
        let mut value = Zeroizing::new(String::with_capacity(normal.len()));
        for word in normal.split_whitespace() {
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str(word);
        }
        let fits = !value.is_empty() && value.len() <= MAX_REFERENCE && !value.chars().any(char::is_control);
        fits.then_some(Self { kind: ReferenceKind::Case, value })
    }

    /// What it is.
    pub(crate) const fn kind(&self) -> ReferenceKind {
        self.kind
    }

    /// Its canonical value.
    pub(crate) fn value(&self) -> &str {
        &self.value
    }

    /// The exchange that it names where the caller gave no message id: its server then tells the exchange's own.
    pub(crate) fn exchange(&self) -> Option<ExchangeId> {
        (self.kind == ReferenceKind::MessageId).then(|| self.value.parse().ok()).flatten()
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reference({:?}, hidden)", self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_one_however_it_is_typed_and_a_message_id_is_its_bytes() {
        assert_eq!(Reference::case(" GA  2026-1187\t"), Reference::case("GA 2026-1187"));
        assert_eq!(Reference::case("Mu\u{308}ller"), Reference::case("M\u{fc}ller"));
        assert_ne!(Reference::case("ga-1"), Reference::case("GA-1"));
        assert_ne!(Reference::message_id("m  1"), Reference::message_id("m 1"));
        assert_ne!(Reference::message_id("m-1"), Reference::case("m-1"));
    }

    #[test]
    fn what_is_none_is_refused_and_nothing_is_told() {
        assert_eq!((Reference::case(" \t"), Reference::message_id("")), (None, None));
        let long = "x".repeat(MAX_REFERENCE + 1);
        assert_eq!((Reference::case(&long), Reference::message_id(&long)), (None, None));
        assert_eq!(Reference::case("a\u{7}b"), None);
        assert!(Reference::case(&long[1..]).is_some());
        assert_eq!(format!("{:?}", Reference::case("secret")), "Some(Reference(Case, hidden))");
    }
}
