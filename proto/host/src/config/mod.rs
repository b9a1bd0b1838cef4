//! Configuration files: read strictly, and every mistake told in one run, with the place and what to do.
//!
//! A configuration's types stand with the module they configure and carry `#[serde(deny_unknown_fields)]`.

mod problems;
mod secret;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use problems::{Hinting, Problem, Problems, with_causes};
pub use secret::Secret;

/// The largest configuration file that is read, in bytes.
const CONFIGURATION_MAX: u64 = 1024 * 1024;

/// Why a configuration file is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The system says no.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Too large for a configuration.
    #[error("the configuration {} is larger than {limit} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The most it may hold, in bytes.
        limit: u64,
    },
    /// Not TOML, or not what is expected there.
    #[error("{}{place}: {what}{}", path.display(), hint.as_deref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line and key.
        place: Place,
        /// What is wrong.
        what: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// Where in a configuration file something stands, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The line, counted from one.
    pub line: Option<usize>,
    /// The key with its tables, dotted.
    pub key: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ", {key}")?;
        }
        Ok(())
    }
}

/// The directory of a configuration file, against which the paths in it are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The directory in which the file `path` stands.
    pub fn of(path: &Path) -> Self {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => Self(parent.to_owned()),
            _ => Self(PathBuf::from(".")),
        }
    }
}

/// A path as a configuration file says it. It can be used only together with the directory of that file, so that it
/// never depends on where a server was started.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path itself; a relative one begins in `directory`.
    pub fn within(&self, directory: &Directory) -> PathBuf {
        directory.0.join(&self.0)
    }
}

/// A configuration as it was read, with what its paths begin at.
#[derive(Debug)]
pub struct Configuration<T> {
    /// What the file says.
    pub value: T,
    /// Where it stands.
    pub directory: Directory,
}

/// Reads the TOML file `path`.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Configuration<T>, ConfigError> {
    let text = read_text(path)?;
    let value = toml::from_str(&text).map_err(|error| explain(path, &text, &error))?;
    Ok(Configuration { value, directory: Directory::of(path) })
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let io = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(CONFIGURATION_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > CONFIGURATION_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit: CONFIGURATION_MAX });
    }
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        ConfigError::Content {
            path: path.to_owned(),
            place: Place { line: Some(line + 1), key: None },
            what: "not UTF-8 text".to_owned(),
            hint: Some("save the file in the encoding UTF-8".to_owned()),
        }
    })
}

fn explain(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let line = error.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let (what, hint) = match unknown_field(error.message()) {
        Some((field, known)) => (format!("there is no key `{field}` here"), Some(hint_known(field, &known))),
        None => (error.message().to_owned(), None),
    };
    ConfigError::Content { path: path.to_owned(), place: Place { line, key: dotted_key(error) }, what, hint }
}

/// The key, which the TOML library tells only to whom does not have the text.
fn dotted_key(error: &toml::de::Error) -> Option<String> {
    let mut bare = error.clone();
    bare.set_input(None);
    let text = bare.to_string();
    let key = text.lines().last()?.strip_prefix("in `")?.strip_suffix('`')?;
    Some(key.to_owned())
}

/// Splits serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let mut quoted = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((quoted.next()?, quoted.collect()))
}

fn hint_known(field: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|key| (distance(field, key), key)).min();
    match nearest {
        Some((distance, key)) if distance <= 2 => format!("did you mean `{key}`?"),
        Some(_) => format!("the keys here are {}", known.join(", ")),
        None => "no keys are known here".to_owned(),
    }
}

/// The number of letters to insert, delete or exchange to make `b` out of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        listen: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        port: u16,
        key: FilePath,
    }

    fn refused(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let error = read::<Outer>(&path).unwrap_err().to_string();
        error.replace(&format!("{}/", directory.path().display()), "")
    }

    #[test]
    fn mistakes_are_told_with_file_line_key_and_hint() {
        for (text, expected) in [
            (
                "[listen]\nport = 1\nkye = \"k\"\n",
                "gateway.toml, line 3, listen: there is no key `kye` here\nhint: did you mean `key`?",
            ),
            (
                "[listen]\nport = 1\nkey = \"k\"\ntls = true\n",
                "gateway.toml, line 4, listen: there is no key `tls` here\nhint: the keys here are port, key",
            ),
            (
                "[listen]\nport = 70000\nkey = \"k\"\n",
                "gateway.toml, line 2, listen.port: invalid value: integer `70000`, expected u16",
            ),
            ("[listen]\nport = 1\n", "gateway.toml, line 1, listen: missing field `key`"),
            ("[listen\n", "gateway.toml, line 1: unclosed table, expected `]`"),
        ] {
            assert_eq!(refused(text), expected);
        }
    }

    #[test]
    fn what_is_not_text_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, b"a = 1\nb = \"\xff\"").unwrap();
        let error = read::<Outer>(&path).unwrap_err().to_string();
        assert!(
            error.ends_with(", line 2: not UTF-8 text\nhint: save the file in the encoding UTF-8"),
            "{error}"
        );
        assert!(matches!(read::<Outer>(&directory.path().join("absent")), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn paths_begin_where_the_file_stands() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.toml");
        std::fs::write(&path, "[listen]\nport = 1\nkey = \"keys/tls.pem\"\n").unwrap();
        let read = read::<Outer>(&path).unwrap();
        assert_eq!(read.value.listen.port, 1);
        assert_eq!(read.value.listen.key.within(&read.directory), directory.path().join("keys/tls.pem"));
        let absolute = FilePath(PathBuf::from("/etc/tls.pem"));
        assert_eq!(absolute.within(&read.directory), Path::new("/etc/tls.pem"));
        assert_eq!(Directory::of(Path::new("gateway.toml")), Directory(PathBuf::from(".")));
    }
}
