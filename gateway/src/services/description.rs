//! A service's OpenAPI description, as its provider publishes it: where the register stands is taken out.

use bytes::Bytes;
use serde_json::{Value, json};
use trave_proto::schema::transport::OfferedEndpoint;

/// The longest description, in bytes.
const MAX: usize = 1 << 20;
/// The operations of a path in OpenAPI.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// A description, and the endpoints that it names.
#[derive(Debug, Default)]
pub(crate) struct Description {
    pub(super) document: Bytes,
    pub(super) endpoints: Vec<OfferedEndpoint>,
}

impl Description {
    /// Reads an OpenAPI document in JSON; an error in words if it is none.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX {
            return Err("is longer than 1 MiB");
        }
        let mut document: Value = serde_json::from_slice(bytes).map_err(|_| "is not JSON")?;
        if document.get("openapi").and_then(Value::as_str).is_none() {
            return Err("is not an OpenAPI document");
        }
        let mut endpoints = Vec::new();
        for (path, operations) in document.get("paths").and_then(Value::as_object).into_iter().flatten() {
            let names = METHODS.iter().filter(|method| operations.get(**method).is_some());
            endpoints.extend(names.map(|method| endpoint(method, path)));
        }
        document["servers"] = json!([{ "url": "http://example.org/xroad-example" }]);
        Ok(Self { document: document.to_string().into(), endpoints })
    }
}

/// A parameter stands for one segment.
fn endpoint(method: &str, path: &str) -> OfferedEndpoint {
    let segment = |segment: &str| if segment.contains('{') { "*".to_owned() } else { segment.to_owned() };
    let path: Vec<String> = path.split('/').map(segment).collect();
    OfferedEndpoint { method: method.to_uppercase(), path: path.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_names_endpoints_and_no_address() {
        let document = br#"{"openapi":"3.1.0","servers":[{"url":"http://10.0.0.1:8080"}],
            "paths":{"/v1/betriebe/{nr}":{"get":{},"delete":{},"parameters":[]}}}"#;
        let description = Description::read(document).unwrap();
        let named = |method: &str| OfferedEndpoint { method: method.into(), path: "/v1/betriebe/*".into() };
        assert_eq!(description.endpoints, [named("GET"), named("DELETE")]);
        assert!(!description.document.windows(8).any(|window| window == b"10.0.0.1"));
        assert!(Description::read(b"openapi: 3.1.0").is_err() && Description::read(b"{}").is_err());
    }
}
