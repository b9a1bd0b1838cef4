//! Secrets: read from files that their owner alone can read, never shown, and wiped from memory when let go.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// A passphrase or a token. It shows itself to nobody who does not ask for it by [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// A secret from its bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Reads the secret from the file `path`, without the line end that an editor leaves behind it.
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        let bytes = files::read_secret(path)?;
        let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        Ok(Self::new(bytes[..end].to_vec()))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_without_its_line_end_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("passphrase");
        files::create(&path, b" two words \r\n").unwrap();
        let secret = Secret::from_file(&path).unwrap();
        assert_eq!(secret.expose(), b" two words ");
        assert_eq!(format!("{secret:?}"), "Secret(not shown)");
    }
}
