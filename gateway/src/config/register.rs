//! Where a register is, as an operator writes it.

/// The register of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterAddress<'a> {
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// `host:port`
    pub address: &'a str,
    /// Of REST: the path that stands before all others, without a slash at its end, and whether it speaks HTTP/2.
    pub rest: Option<(&'a str, bool)>,
}

impl<'a> RegisterAddress<'a> {
    /// A register that speaks gRPC.
    pub(super) fn grpc(backend: &'a str) -> Result<Self, String> {
        let (tls, authority) = scheme(backend)?;
        let address = authority.strip_suffix('/').unwrap_or(authority);
        check(tls, address, backend)?;
        Ok(Self { tls, address, rest: None })
    }

    /// A register that speaks REST.
    pub(super) fn rest(url: &'a str, http2: bool) -> Result<Self, String> {
        let (tls, rest) = scheme(url)?;
        let (address, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let base = base.strip_suffix('/').unwrap_or(base);
        check(tls, address, url)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%:@!$&'()*+,;=".contains(&b);
        let strange = |segment: &str| matches!(segment, "" | "." | "..");
        if !base.bytes().all(fits) || base.split('/').skip(1).any(strange) {
            return Err(format!("{url:?} has a path that is not a plain one, or a query"));
        }
        Ok(Self { tls, address, rest: Some((base, http2)) })
    }
}

fn scheme(url: &str) -> Result<(bool, &str), String> {
    match url.split_once("://") {
        Some(("http", rest)) => Ok((false, rest)),
        Some(("https", rest)) => Ok((true, rest)),
        _ => Err(format!("{url:?} is not http://host:port or https://host:port")),
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
            let register = RegisterAddress::rest(url, false).unwrap();
            assert_eq!(register, RegisterAddress { tls, address, rest: Some((base, false)) });
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
            assert!(RegisterAddress::rest(url, false).is_err(), "{url}");
        }
    }
}
