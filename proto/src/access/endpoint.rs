//! What a grant says of HTTP: a method and a path pattern, as in X-Road: `*` stands for one segment, `**` for the rest.

/// What an HTTP call is about, beside its service: the method and the canonical path within the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The HTTP method.
    pub method: String,
    /// The path in its canonical form.
    pub path: String,
    /// Where WebDAV moves or copies to: whoever may not write there by this method may not move there.
    pub destination: Option<String>,
}

impl Endpoint {
    /// Whether `pattern` covers this endpoint: `/*` covers all of a service, `GET /v1/*` what it says.
    pub fn matches(&self, pattern: &str) -> bool {
        if pattern == "/*" {
            return true;
        }
        let Some((method, path)) = pattern.split_once(' ') else { return false };
        let mut paths = std::iter::once(&self.path).chain(&self.destination);
        (method == "*" || method == self.method) && paths.all(|asked| covers(path, asked))
    }
}

/// Whether `text` is a pattern of an endpoint: `METHOD /path`, where METHOD may be `*`, and a segment may be `*` or, as the
/// last, `**`.
pub fn is_endpoint_pattern(text: &str) -> bool {
    let Some((method, path)) = text.split_once(' ') else { return false };
    let is_method =
        method == "*" || (!method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-'));
    let Some(segments) = path.strip_prefix('/') else { return false };
    let count = segments.split('/').count();
    let fits = |(at, segment): (usize, &str)| match segment {
        "*" => true,
        "**" | "" => at + 1 == count,
        "." | ".." => false,
        _ => !segment.contains('*') && segment.bytes().all(|b| (0x21..0x7f).contains(&b)),
    };
    is_method && path.len() <= 1024 && segments.split('/').enumerate().all(fits)
}

fn covers(pattern: &str, path: &str) -> bool {
    let path = if path.is_empty() { "/" } else { path };
    let mut segments = path.split('/');
    for part in pattern.split('/') {
        if part == "**" {
            return true;
        }
        match segments.next() {
            Some(segment) if part == segment || (part == "*" && !segment.is_empty()) => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Endpoint {
        Endpoint { method: "GET".into(), path: path.into(), destination: None }
    }

    #[test]
    fn patterns_cover_what_they_say() {
        for (pattern, path) in [
            ("/*", "/anything/at/all"),
            ("GET /v1/personen/*", "/v1/personen/4711"),
            ("* /v1/**", "/v1/personen/4711/anschrift"),
            ("GET /v1/**", "/v1/"),
            ("GET /", ""),
            ("GET /**", "/"),
        ] {
            assert!(get(path).matches(pattern), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("GET /v1/personen/*", "/v1/personen/4711/anschrift"),
            ("GET /v1/personen/*", "/v1/personen/"),
            ("GET /v1/personen/*", "/v1/personen"),
            ("POST /v1/**", "/v1/personen"),
            ("GET /v1/**", "/v2/personen"),
            ("/test.v1.Auskunft/*", "/test.v1.Auskunft/Frage"),
            ("/test.v1.Auskunft/Frage", "/test.v1.Auskunft/Frage"),
        ] {
            assert!(!get(path).matches(pattern), "{pattern} {path}");
        }
    }

    #[test]
    fn a_destination_is_granted_too() {
        let to = |path: &str| Endpoint {
            method: "MOVE".into(),
            path: "/akten/1".into(),
            destination: Some(path.into()),
        };
        assert!(to("/akten/2").matches("MOVE /akten/*"));
        assert!(!to("/archiv/1").matches("MOVE /akten/*"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["GET /v1/*", "* /**", "M-SEARCH /", "GET /a%20b/*/c/"] {
            assert!(is_endpoint_pattern(text), "{text}");
        }
        for text in
            ["", "GET", "GET v1", "get /v1", "GET /v1/**/x", "GET /a*b", "GET /..", "GET /a//b", "GET /a b"]
        {
            assert!(!is_endpoint_pattern(text), "{text}");
        }
    }
}
