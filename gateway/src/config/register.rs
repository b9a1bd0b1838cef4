//! Where a register is, as an operator writes it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// One value, or several in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMore<T>(Vec<T>);

impl<T> std::ops::Deref for OneOrMore<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = OneOrMore<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
                T::deserialize(value.into_deserializer()).map(|one| OneOrMore(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = values.next_element()? {
                    all.push(value);
                }
                match all.is_empty() {
                    false => Ok(OneOrMore(all)),
                    true => Err(de::Error::invalid_length(0, &self)),
                }
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// The register of a service: one server, or several that answer the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterAddress<'a> {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// `host:port` of each.
    pub addresses: Vec<&'a str>,
    /// Of REST: the path that stands before all others, without a slash at its end, and whether it speaks HTTP/2.
    pub rest: Option<(&'a str, bool)>,
}

impl<'a> RegisterAddress<'a> {
    /// A register that speaks gRPC.
    pub(super) fn grpc(backends: &'a [String]) -> Result<Self, String> {
        Self::all(backends, |backend| {
            let (tls, authority) = scheme(backend)?;
            let address = authority.strip_suffix('/').unwrap_or(authority);
            check(tls, address, backend)?;
            Ok(Self { tls, addresses: vec![address], rest: None })
        })
    }

    /// A register that speaks REST.
    pub(super) fn rest(urls: &'a [String], http2: bool) -> Result<Self, String> {
        Self::all(urls, |url| {
            let (tls, rest) = scheme(url)?;
            let (address, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let base = base.strip_suffix('/').unwrap_or(base);
            check(tls, address, url)?;
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%:@!$&'()*+,;=".contains(&b);
            let strange = |segment: &str| matches!(segment, "" | "." | "..");
            if !base.bytes().all(fits) || base.split('/').skip(1).any(strange) {
                return Err(format!("{url:?} has a path that is not a plain one, or a query"));
            }
            Ok(Self { tls, addresses: vec![address], rest: Some((base, http2)) })
        })
    }

    /// Several are one register: they differ in their addresses alone.
    fn all(urls: &'a [String], read: impl Fn(&'a str) -> Result<Self, String>) -> Result<Self, String> {
        let mut register: Option<Self> = None;
        for url in urls {
            let one = read(url)?;
            let Some(all) = &mut register else {
                register = Some(one);
                continue;
            };
            if (one.tls, one.rest) != (all.tls, all.rest) {
                return Err(format!("{url:?} differs from the others in more than its address"));
            }
            if one.addresses.iter().any(|address| all.addresses.contains(address)) {
                return Err(format!("{url:?} stands there twice"));
            }
            all.addresses.extend(one.addresses);
        }
        register.ok_or_else(|| "names no register".into())
    }
}

fn scheme(url: &str) -> Result<(bool, &str), String> {
    match url.split_once("://") {
        Some(("http", rest)) => Ok((false, rest)),
        Some(("https", rest)) => Ok((true, rest)),
        _ => Err(format!("{url:?} is not http://host:port or https://host:port")),
    }
}

/// Whether `url` is `https://host[:port]`, or `http://host:port` on loopback, and nothing beyond.
pub(super) fn check_scheme(url: &str) -> Result<(), String> {
    let (tls, address) = scheme(url)?;
    let address = address.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if address.is_empty() || !address.bytes().all(plain) {
        return Err(format!("{url:?} is more or less than https://host:port"));
    }
    match tls {
        true => Ok(()),
        false => check(false, address, url),
    }
}

/// Without TLS a register is on loopback, or whoever stands between could read and alter what was verified.
fn check(tls: bool, address: &str, url: &str) -> Result<(), String> {
    let host = match address.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => return Err(format!("{url:?} has no port")),
    };
    let loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match tls || loopback {
        true => Ok(()),
        false => Err("without TLS a register is spoken to on loopback only".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_address_and_base() {
        for (url, tls, address, base) in [
            ("http://127.0.0.1:8080", false, "127.0.0.1:8080", ""),
            ("http://localhost:8080/", false, "localhost:8080", ""),
            ("https://register.example:443/api/v2/", true, "register.example:443", "/api/v2"),
            ("http://[::1]:80/a", false, "[::1]:80", "/a"),
        ] {
            let urls = [url.to_owned()];
            let register = RegisterAddress::rest(&urls, false).unwrap();
            let expected = RegisterAddress { tls, addresses: vec![address], rest: Some((base, false)) };
            assert_eq!(register, expected);
        }
        for url in [
            "127.0.0.1:80",
            "ftp://127.0.0.1:80",
            "http://127.0.0.1",
            "http://register.example:80/",
            "http://127.0.0.1:80/a//b",
            "http://127.0.0.1:80/a/../b",
            "http://127.0.0.1:80/a?b",
            "http://127.0.0.1:80/ä",
        ] {
            assert!(RegisterAddress::rest(&[url.to_owned()], false).is_err(), "{url}");
        }
    }

    #[test]
    fn several_differ_in_their_addresses_alone() {
        let all = |urls: &[&str]| {
            let urls: Vec<_> = urls.iter().map(|url| (*url).to_owned()).collect();
            RegisterAddress::rest(&urls, false).map(|register| register.addresses.join(" "))
        };
        assert_eq!(
            all(&["http://127.0.0.1:1/a", "http://127.0.0.1:2/a/"]).unwrap(),
            "127.0.0.1:1 127.0.0.1:2"
        );
        for other in ["http://127.0.0.1:2/b", "https://127.0.0.1:2/a", "http://127.0.0.1:1/a", "127.0.0.1:2"]
        {
            assert!(all(&["http://127.0.0.1:1/a", other]).is_err(), "{other}");
        }
    }

    #[test]
    fn one_or_several_are_written_as_a_text_or_a_list() {
        #[derive(Debug, Deserialize)]
        struct Probe {
            at: OneOrMore<String>,
        }
        let read = |text: &str| toml::from_str::<Probe>(text).map(|probe| probe.at.join(" "));
        assert_eq!(read("at = \"a\"").unwrap(), "a");
        assert_eq!(read("at = [\"a\", \"b\"]").unwrap(), "a b");
        for wrong in ["at = []", "at = 1", "at = [1]"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
