//! The parameters of `GET /asic`, as X-Road has them, read strictly.

use axum::extract::Query;
use http::Uri;
use trave_proto::identifier::SubsystemId;

use crate::proof::Contents;

/// Longest query id, in bytes: as long as what a caller can say in `X-Road-Id`.
const MAX_ID: usize = 1024;
const NAMES: [&str; 9] = [
    "queryId",
    "xRoadInstance",
    "memberClass",
    "memberCode",
    "subsystemCode",
    "requestOnly",
    "responseOnly",
    "unique",
    // Every container is stamped when it is made: nothing has to be forced.
    "force",
];

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Whose exchanges.
    pub(super) client: SubsystemId,
    /// The `X-Road-Id` under which they were asked, or the id of one exchange.
    pub(super) query_id: String,
    /// Which of their contents.
    pub(super) contents: Contents,
    /// One container by itself, not a bundle.
    pub(super) unique: bool,
}

impl Asked {
    /// Reads them; an error in words.
    pub(super) fn read(uri: &Uri) -> Result<Self, String> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let Query(pairs) = pairs.map_err(|_| "the query cannot be read".to_owned())?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !NAMES.contains(&name.as_str()) {
                return Err(format!("there is no parameter {:?}", name.escape_default().to_string()));
            }
            if pairs[..at].iter().any(|(other, _)| other == name) {
                return Err(format!("the parameter \"{name}\" stands twice"));
            }
        }
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let must = |name: &str| {
            value(name)
                .filter(|it| !it.is_empty())
                .ok_or_else(|| format!("parameter \"{name}\" must be specified"))
        };
        let client =
            [must("xRoadInstance")?, must("memberClass")?, must("memberCode")?, must("subsystemCode")?];
        let client = client.join("/").parse().map_err(|error| format!("the client is not valid: {error}"))?;
        let query_id = must("queryId")?;
        if query_id.len() > MAX_ID {
            return Err(format!("parameter \"queryId\" has more than {MAX_ID} bytes"));
        }
        let contents = match (value("requestOnly"), value("responseOnly")) {
            (None, None) => Contents::All,
            (Some(_), None) => Contents::Requests,
            (None, Some(_)) => Contents::Responses,
            (Some(_), Some(_)) => {
                return Err(
                    "parameters \"requestOnly\" and \"responseOnly\" cannot be used at the same time".into(),
                );
            }
        };
        let unique = value("unique").is_some();
        if unique && contents == Contents::All {
            return Err(
                "parameter \"unique\" is not applicable without \"requestOnly\" or \"responseOnly\"".into()
            );
        }
        Ok(Self { client, query_id: query_id.to_owned(), contents, unique })
    }

    /// What stands behind the name of a file.
    pub(super) fn suffix(&self) -> &'static str {
        match self.contents {
            Contents::Requests => "-request",
            Contents::Responses => "-response",
            Contents::All | Contents::None => "",
        }
    }

    /// The name of the file that is given out, without its ending: of the query id what is harmless in a name.
    pub(super) fn file_name(&self) -> String {
        let harmless = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        let id: String = self.query_id.chars().take(64).map(harmless).collect();
        format!("{id}{}", self.suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "xRoadInstance=NORD&memberClass=SH&memberCode=luebeck&subsystemCode=gewerbeamt";

    fn read(query: &str) -> Result<Asked, String> {
        Asked::read(&format!("/asic?{query}").parse().unwrap())
    }

    #[test]
    fn parameters_are_those_of_x_road() {
        for (more, contents, unique, name) in [
            ("queryId=m-1", Contents::All, false, "m-1"),
            ("queryId=a%2Fb+c&requestOnly", Contents::Requests, false, "a-b-c-request"),
            ("responseOnly=&unique&queryId=m-1&force", Contents::Responses, true, "m-1-response"),
            ("queryId=%0d%0a%22x&unique=true&requestOnly=1", Contents::Requests, true, "---x-request"),
        ] {
            let asked = read(&format!("{CLIENT}&{more}")).unwrap();
            assert_eq!((asked.contents, asked.unique), (contents, unique), "{more}");
            assert_eq!(asked.client.to_string(), "NORD/SH/luebeck/gewerbeamt");
            assert_eq!(asked.file_name(), name);
        }
        assert_eq!(read(&format!("{CLIENT}&queryId=a%2Fb+c")).unwrap().query_id, "a/b c");
    }

    #[test]
    fn what_is_missing_contradictory_or_unknown_is_said() {
        for (query, why) in [
            (CLIENT.to_owned(), "\"queryId\" must be specified"),
            (format!("{CLIENT}&queryId="), "\"queryId\" must be specified"),
            (format!("{CLIENT}&queryId={}", "x".repeat(MAX_ID + 1)), "more than"),
            (CLIENT.replace("subsystemCode", "queryId"), "\"subsystemCode\" must be specified"),
            (format!("{CLIENT}&queryId=m&requestOnly&responseOnly"), "at the same time"),
            (format!("{CLIENT}&queryId=m&unique"), "not applicable"),
            (format!("{CLIENT}&queryId=m&queryId=n"), "stands twice"),
            (format!("{CLIENT}&queryId=m&query=n"), "no parameter"),
            (CLIENT.replace("luebeck", "a%2Fb") + "&queryId=m", "the client is not valid"),
        ] {
            let error = read(&query).unwrap_err();
            assert!(error.contains(why), "{query}: {error}");
        }
    }
}
