//! Where a chunked body ends (RFC 9112, section 7.1). Its bytes are not judged here, only counted.

/// How far a chunked body has come.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    at: At,
    /// The size that is being read, or what is left of the chunk with the line end behind it.
    left: u64,
    /// Whether the line under way has something in it.
    filled: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Size,
    Extension,
    Data,
    Trailers,
    Over,
    Lost,
}

impl Chunks {
    /// Takes bytes up to the end of the body, and says how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_over() && !self.is_lost() {
            if self.at == At::Data {
                let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len() - taken);
                self.left -= len as u64;
                taken += len;
                if self.left == 0 {
                    self.at = At::Size;
                }
            } else {
                self.line(bytes[taken]);
                taken += 1;
            }
        }
        // What is not understood goes on whole: the library judges it.
        if self.is_lost() { bytes.len() } else { taken }
    }

    /// Whether the body has ended.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Whether it is not chunked as it should be.
    pub(super) fn is_lost(&self) -> bool {
        self.at == At::Lost
    }

    fn line(&mut self, byte: u8) {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        match (self.at, byte) {
            (At::Trailers, b'\n') if !self.filled => self.at = At::Over,
            (At::Trailers, b'\n') => self.filled = false,
            (At::Trailers, byte) => self.filled |= byte != b'\r',
            (At::Size | At::Extension, b'\n') if self.filled => self.begin(),
            (At::Size, b';' | b' ' | b'\t' | b'\r') if self.filled => self.at = At::Extension,
            (At::Extension, byte) if byte != b'\n' => {}
            (At::Size, _) => match digit.and_then(|digit| self.left.checked_mul(16)?.checked_add(digit)) {
                Some(left) => (self.left, self.filled) = (left, true),
                None => self.at = At::Lost,
            },
            _ => self.at = At::Lost,
        }
    }

    /// After the line with a chunk's size: its data and the line end behind it, or at the last the trailers.
    fn begin(&mut self) {
        self.filled = false;
        match (self.left, self.left.checked_add(2)) {
            (0, _) => self.at = At::Trailers,
            (_, Some(left)) => (self.at, self.left) = (At::Data, left),
            (_, None) => self.at = At::Lost,
        }
    }
}
