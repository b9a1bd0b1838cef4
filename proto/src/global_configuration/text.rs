//! How texts, codes, addresses and keys must look before anybody relies on them.

use std::str::FromStr;

use crate::digest::Digest;

/// What is wrong in a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {problem}")]
pub struct FieldError {
    /// The field, as `members[3].id`.
    pub at: String,
    /// What is wrong with it.
    pub problem: String,
}

impl FieldError {
    pub(crate) fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { at: at.into(), problem: problem.into() }
    }
}

/// Whether `text` is a code of the catalogue (a purpose or a legal basis) or the name of a configuration key:
/// 1 to 64 characters of `A–Z a–z 0–9 . _ -`.
pub fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `text` is 1 to `max` bytes for a person to read: no control character, no space at either end.
pub(crate) fn is_text(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && text.trim() == text && !text.chars().any(char::is_control)
}

/// Requires `holds`, else says what is wrong `at` the field.
pub(crate) fn require(holds: bool, at: impl FnOnce() -> String, problem: &str) -> Result<(), FieldError> {
    if holds { Ok(()) } else { Err(FieldError::new(at(), problem)) }
}

/// Requires that `text` is readable and not longer than `max` bytes.
pub(crate) fn require_text(text: &str, max: usize, at: impl FnOnce() -> String) -> Result<(), FieldError> {
    let problem = format!("must be 1 to {max} bytes of text without control characters");
    require(is_text(text, max), at, &problem)
}

/// Parses an identifier of this instance.
pub(crate) fn identifier<T>(text: &str, instance: &str, at: impl FnOnce() -> String) -> Result<T, FieldError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    // The instance is the part before the first slash; that there is one, the parser sees to.
    match text.parse::<T>() {
        Ok(id) if text.split('/').next() == Some(instance) => Ok(id),
        Ok(_) => Err(FieldError::new(at(), format!("is not of the instance {instance}"))),
        Err(source) => Err(FieldError::new(at(), source.to_string())),
    }
}

/// Requires at most `max` entries, strictly ascending by `key`: so none is there twice and there is one order.
pub(crate) fn require_ascending<T, K: Ord + ?Sized>(
    list: &[T],
    max: usize,
    at: &str,
    key: impl Fn(&T) -> &K,
) -> Result<(), FieldError> {
    require(list.len() <= max, || at.into(), &format!("has more than {max} entries"))?;
    match list.windows(2).position(|pair| key(&pair[0]) >= key(&pair[1])) {
        Some(index) => {
            Err(FieldError::new(format!("{at}[{}]", index + 1), "is out of order, or there already"))
        }
        None => Ok(()),
    }
}

/// A SHA-256 digest from its bytes.
pub(crate) fn digest(bytes: &[u8], at: impl FnOnce() -> String) -> Result<Digest, FieldError> {
    Digest::from_slice(bytes).ok_or_else(|| FieldError::new(at(), "is not a SHA-256 digest of 32 bytes"))
}

/// Requires `host:port`: a DNS name, an IPv4 address, or an IPv6 address in brackets, and a port that is not 0.
pub(crate) fn require_address(text: &str, at: impl FnOnce() -> String) -> Result<(), FieldError> {
    require(is_address(text), at, "is not host:port")
}

fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let port_holds = port.parse::<u16>().is_ok_and(|number| number != 0 && number.to_string() == port);
    port_holds && (is_host_name(host) || is_ipv6_in_brackets(host))
}

fn is_ipv6_in_brackets(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// RFC 1123 section 2.1; an IPv4 address looks the same.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&host.len()) && host.split('.').all(label)
}

/// Requires URLs `http://…` or `https://…` of at most 512 visible ASCII characters, at most 8 of them.
pub(crate) fn require_urls(urls: &[String], at: &str) -> Result<(), FieldError> {
    require(urls.len() <= 8, || at.into(), "has more than 8 entries")?;
    for (i, url) in urls.iter().enumerate() {
        require(is_url(url), || format!("{at}[{i}]"), "is not an http:// or https:// URL")?;
    }
    Ok(())
}

fn is_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let visible = url.bytes().all(|b| b.is_ascii_graphic());
    url.len() <= 512 && visible && (is_host_name(authority) || is_address(authority))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_a_strict_grammar() {
        for yes in ["gewerbe-ummeldung", "GewO.14", "a", &"x".repeat(64)] {
            assert!(is_code(yes), "{yes}");
        }
        for no in ["", "a b", "ä", "a/b", "a\n", &"x".repeat(65)] {
            assert!(!is_code(no), "{no}");
        }
    }

    #[test]
    fn addresses_and_urls_have_one_form() {
        for yes in ["localhost:1", "127.0.0.1:8443", "[::1]:443", "s1.luebeck.example:65535"] {
            assert!(is_address(yes), "{yes}");
        }
        for no in ["localhost", ":1", "h:0", "h:01", "h:65536", "::1:443", "a b:1", "-a:1", "h:+1", "u@h:1"] {
            assert!(!is_address(no), "{no}");
        }
        for yes in ["http://127.0.0.1:80/ocsp", "https://tsa.example", "http://[::1]:9/x"] {
            assert!(is_url(yes), "{yes}");
        }
        for no in ["ftp://a", "http://", "http:///x", "http://a b", "http://a\u{0}", "http://u@h/"] {
            assert!(!is_url(no), "{no}");
        }
    }
}
