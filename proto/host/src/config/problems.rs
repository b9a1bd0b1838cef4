//! All mistakes of a configuration in one run, instead of the first one again and again.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key with its tables, dotted; empty if it is about the whole.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The mistakes found so far in one configuration file.
///
/// ```
/// # use trave_host::config::Problems;
/// let mut problems = Problems::of("gateway.toml");
/// let port: Option<u16> = problems.keep("listen.port", "70000".parse());
/// assert_eq!(port, None);
/// problems.add("listen.key", "the file is missing").hint("create it with `trave-gateway enrol`");
/// assert_eq!(problems.finish(()).unwrap_err().len(), 2);
/// ```
#[derive(Debug)]
pub struct Problems {
    file: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    /// None yet, in `file`.
    pub fn of(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), found: Vec::new() }
    }

    /// Notes a mistake at `key`.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>) -> Hinting<'_> {
        let at = self.found.len();
        self.found.push(Problem { key: key.into(), what: what.into(), hint: None });
        Hinting(&mut self.found[at])
    }

    /// The value, or nothing and a note of the error with its causes.
    pub fn keep<T, E: Error>(&mut self, key: impl Into<String>, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(key, with_causes(&error));
                None
            }
        }
    }

    /// What was made of the configuration, if no mistake was found in it.
    pub fn finish<T>(self, value: T) -> Result<T, Self> {
        if self.found.is_empty() { Ok(value) } else { Err(self) }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Each of them, in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.found.iter()
    }
}

/// One line for each, and one for each hint.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.found.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}", self.file.display())?;
            if !problem.key.is_empty() {
                write!(f, ", {}", problem.key)?;
            }
            write!(f, ": {}", problem.what)?;
            if let Some(hint) = &problem.hint {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl Error for Problems {}

/// A mistake just noted, to which a hint can be added.
#[derive(Debug)]
pub struct Hinting<'a>(&'a mut Problem);

impl Hinting<'_> {
    /// What the reader can do about it.
    pub fn hint(self, hint: impl Into<String>) {
        self.0.hint = Some(hint.into());
    }
}

/// An error and its causes in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn all_mistakes_are_told_at_once_with_their_causes() {
        let mut problems = Problems::of("registry.toml");
        assert_eq!(problems.keep("threshold", "2".parse::<u8>()), Some(2));
        let absent = std::path::Path::new("/nonexistent/key");
        assert!(problems.keep("keys.tls", files::read_secret(absent)).is_none());
        problems.add("", "no administrator is named").hint("add an [[administrators]] table");
        let told = problems.finish(()).unwrap_err().to_string();
        assert_eq!(
            told,
            "registry.toml, keys.tls: cannot read /nonexistent/key: No such file or directory (os error 2)\n\
             registry.toml: no administrator is named\n\
             hint: add an [[administrators]] table"
        );
    }
}
