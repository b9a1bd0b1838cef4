//! Where the requests of a service name the person concerned, as an operator writes it.

use serde::Deserialize;
use trave_host::config::Problems;
use trave_message_log::is_scheme;

use super::OneOrMore;

/// Whom a call of the service concerns. Pseudonyms alone are kept: docs/persons.md.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// What the identifiers in the requests are, such as `steuer-id`.
    pub scheme: String,
    /// Whether the caller's `trave-subject` counts too: it is declared, and checked by nobody.
    #[serde(default)]
    pub header: bool,
    /// Of gRPC: the way to the identifier by field numbers, `1.2`; several in a list.
    grpc_field: Option<OneOrMore<String>>,
    /// Of REST: the way to the identifier in JSON (RFC 6901), `/person/id`; several in a list.
    json_pointer: Option<OneOrMore<String>>,
    /// Whether a request that names nobody is refused.
    #[serde(default)]
    pub required: bool,
}

/// Longest way.
const MAX_DEPTH: usize = 16;

impl Subject {
    /// The ways by field numbers; an error in words if one is none.
    pub fn fields(&self) -> Result<Vec<Vec<u32>>, String> {
        let fields = self.grpc_field.as_deref().unwrap_or_default();
        fields.iter().map(|path| field(path)).collect()
    }

    /// The ways through JSON.
    pub fn pointers(&self) -> &[String] {
        self.json_pointer.as_deref().unwrap_or_default()
    }

    pub(super) fn check(&self, key: &str, is_grpc: bool, problems: &mut Problems) {
        if !is_scheme(&self.scheme) {
            problems.add(format!("{key}.scheme"), "is not a-z, 0-9 and hyphen, beginning with a letter");
        }
        if let Err(what) = self.fields() {
            problems.add(format!("{key}.grpc_field"), what).hint("write 1.2 for field 2 of field 1");
        }
        for pointer in self.pointers() {
            if !pointer.starts_with('/') || pointer.split('/').count() > MAX_DEPTH + 1 || !is_escaped(pointer)
            {
                problems
                    .add(format!("{key}.json_pointer"), format!("{pointer:?} is no JSON pointer (RFC 6901)"));
            }
        }
        let (grpc, json) = (self.grpc_field.is_some(), self.json_pointer.is_some());
        if (grpc && !is_grpc) || (json && is_grpc) {
            problems.add(key, "grpc_field is for gRPC, json_pointer for REST");
        }
        if !grpc && !json && !self.header {
            problems.add(key, "nothing says where the person is named").hint("header = true, or a field");
        }
    }
}

fn field(path: &str) -> Result<Vec<u32>, String> {
    let wrong = || format!("{path:?} is no way by field numbers");
    let numbers: Result<Vec<u32>, _> = path.split('.').map(str::parse).collect();
    let numbers = numbers.map_err(|_| wrong())?;
    let fits = |number: &u32| (1..1 << 29).contains(number);
    if numbers.len() <= MAX_DEPTH && numbers.iter().all(fits) { Ok(numbers) } else { Err(wrong()) }
}

/// Whether each tilde is one of the two that there are.
fn is_escaped(pointer: &str) -> bool {
    pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_strict() {
        assert_eq!(field("1.2"), Ok(vec![1, 2]));
        for wrong in ["", "1.", "0", "1..2", "a", "-1", "536870912", &"1.".repeat(20)] {
            assert!(field(wrong).is_err(), "{wrong}");
        }
        assert!(is_escaped("/a~1b~0") && !is_escaped("/a~b") && !is_escaped("/a~"));
    }
}
