//! The running commentary of a server, on standard error: JSON lines for machines, plain lines at a terminal.
//!
//! It tells what operators need, and never keys, salts, contents or caller contexts. It is no record of exchanges: that
//! is the message log.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The environment variable that says what is told, before the option.
pub const VARIABLE: &str = "TRAVE_LOG";

/// The libraries below speak of every frame; what matters of it, our servers say themselves.
const LIBRARIES: [&str; 6] =
    ["h2=warn", "hyper=warn", "hyper_util=warn", "rustls=warn", "sled=warn", "tower=warn"];

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Plain at a terminal, JSON elsewhere.
    #[default]
    Automatic,
    /// One JSON object for each line.
    Json,
    /// For people.
    Plain,
}

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Not a level, nor a list of them.
    #[error("{level:?} does not say what to log (hint: info, or debug, or trave_gateway=debug,info)")]
    Level {
        /// What was to be one.
        level: String,
        /// What the reader says.
        source: ParseError,
    },
    /// It was begun before.
    #[error("logging was set up already")]
    Again(#[source] TryInitError),
}

/// Begins to log, once in a process. `level` is what is told ("info", or "trave_gateway=debug,info") unless the
/// environment says otherwise.
pub fn begin(level: &str, format: Format) -> Result<(), LoggingError> {
    let set = std::env::var(VARIABLE);
    let filter = filter(set.as_deref().unwrap_or(level))?;
    let plain = match format {
        Format::Automatic => io::stderr().is_terminal(),
        Format::Json => false,
        Format::Plain => true,
    };
    let begun = if plain {
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
        lines.with_ansi(io::stderr().is_terminal()).finish().try_init()
    } else {
        json_lines(filter, io::stderr).try_init()
    };
    begun.map_err(LoggingError::Again)
}

fn json_lines<W>(filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .finish()
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    // What was asked for comes last, so that it prevails over what is usual for the libraries.
    let directives = format!("{},{level}", LIBRARIES.join(","));
    EnvFilter::builder()
        .parse(&directives)
        .map_err(|source| LoggingError::Level { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn levels_are_read_and_libraries_are_quiet_unless_asked() {
        let quiet = filter("info").unwrap().to_string();
        assert!(quiet.contains("h2=warn") && quiet.contains("info"), "{quiet}");
        let asked = filter("h2=trace,debug").unwrap().to_string();
        assert!(asked.contains("h2=trace") && !asked.contains("h2=warn"), "{asked}");
    }

    #[test]
    fn a_line_is_one_json_object_with_its_fields() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = Arc::new(std::fs::File::create(&path).unwrap());
        tracing::subscriber::with_default(json_lines(filter("info").unwrap(), file), || {
            let span = tracing::info_span!("exchange", exchange_id = "0199");
            span.in_scope(|| tracing::warn!(disk = 91, "filling \"up\"\nsoon"));
            tracing::debug!("not asked for");
        });
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in [
            r#""level":"WARN""#,
            r#""message":"filling \"up\"\nsoon""#,
            r#""disk":91"#,
            r#""exchange_id":"0199""#,
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_a_hint() {
        let refused = filter("trave_gateway=loud").unwrap_err().to_string();
        assert!(refused.starts_with("\"trave_gateway=loud\" does not say what to log (hint:"), "{refused}");
    }
}
