//! The encryption of an archived object, byte for byte.
//!
//! A random file key encrypts the object; it is itself encrypted to each recipient with HPKE (RFC 9180, base mode,
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM), so that a server writes what it cannot read, and any program that
//! knows HPKE reads it. Why not age: its crate brings 150 others, a pre-release among them, for messages in many languages.
//!
//! | bytes | what |
//! |---|---|
//! | 16 | `trave archive 1\n` |
//! | 1 | number of recipients, 1 to 16 |
//! | 112 each | public key (32), encapsulated key (32), encrypted file key (32 + 16); info `trave archive file key v1\n`, aad the public key |
//! | rest | chunks of 64 KiB, the last shorter and never empty, each AES-256-GCM under the file key with 16 bytes of tag |
//!
//! The nonce of a chunk is its number (11 bytes, big-endian) and 1 in the last one, else 0: chunks that were cut off, left out
//! or moved do not decrypt. What is authenticated with each is the SHA-256 of everything before the first.

use std::io::{self, Read, Write};

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use trave_proto::digest::Digest;
use zeroize::Zeroizing;

use super::keys::{ArchiveIdentity, ArchiveRecipient, KEY, Kem};

const MAGIC: &[u8; 16] = b"trave archive 1\n";
const INFO: &[u8] = b"trave archive file key v1\n";
/// Bytes of plaintext in a chunk.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
const STANZA: usize = KEY + 32 + KEY + TAG;
/// Most recipients of an object.
pub(crate) const MAX_RECIPIENTS: usize = 16;

fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// What the chunks of an object have in common.
struct Cipher {
    key: LessSafeKey,
    header: Digest,
    number: u64,
}

impl Cipher {
    fn new(file_key: &[u8], header: &[u8]) -> io::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, file_key).map_err(|_| refused("the file key is no key"))?;
        Ok(Self { key: LessSafeKey::new(key), header: Digest::of(header), number: 0 })
    }
}

/// Encrypts what is written to it. [`Sealer::finish`] must be called, or what was written does not open.
pub(crate) struct Sealer<W: Write> {
    out: W,
    cipher: Cipher,
    chunk: Vec<u8>,
    digest: ring::digest::Context,
    length: u64,
}

impl<W: Write> Sealer<W> {
    /// Begins an object that each of these keys opens.
    pub(crate) fn new(out: W, recipients: &[ArchiveRecipient]) -> io::Result<Self> {
        let count = u8::try_from(recipients.len())
            .ok()
            .filter(|count| (1..=MAX_RECIPIENTS).contains(&usize::from(*count)));
        let count = count.ok_or_else(|| refused("an archive needs between 1 and 16 public keys"))?;
        let mut file_key = Zeroizing::new([0; KEY]);
        SystemRandom::new()
            .fill(&mut *file_key)
            .map_err(|_| refused("the system gives no random numbers"))?;
        let mut header = [&MAGIC[..], &[count]].concat();
        for recipient in recipients {
            header.extend_from_slice(&stanza(recipient, &file_key)?);
        }
        let cipher = Cipher::new(&*file_key, &header)?;
        let digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut sealer = Self { out, cipher, chunk: Vec::with_capacity(CHUNK + TAG), digest, length: 0 };
        sealer.emit(&header)?;
        Ok(sealer)
    }

    /// Writes the last chunk. SHA-256 and length of the whole object.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        self.seal(true)?;
        self.out.flush()?;
        let digest = Digest::from_slice(self.digest.finish().as_ref());
        Ok((digest.ok_or_else(|| refused("no digest"))?, self.length))
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let aad = Aad::from(*self.cipher.header.as_bytes());
        let sealed =
            self.cipher.key.seal_in_place_append_tag(nonce(self.cipher.number, last), aad, &mut chunk);
        sealed.map_err(|_| refused("a chunk could not be encrypted"))?;
        self.cipher.number += 1;
        self.emit(&chunk)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    fn emit(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn stanza(recipient: &ArchiveRecipient, file_key: &[u8; KEY]) -> io::Result<Vec<u8>> {
    let failed = |_| refused("the file key could not be encrypted to a recipient");
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&recipient.0).map_err(failed)?;
    let (encapsulated, sealed) = hpke::single_shot_seal::<AesGcm256, HkdfSha256, Kem>(
        &OpModeS::Base,
        &public,
        INFO,
        file_key,
        &recipient.0,
    )
    .map_err(failed)?;
    Ok([&recipient.0[..], &encapsulated.to_bytes(), &sealed].concat())
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Only what is followed by something is known not to be the last.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decrypts an object while it is read. What was read is genuine, but the object is whole only when the end was reached.
pub(crate) struct Opener<R: Read> {
    input: R,
    cipher: Cipher,
    /// The next chunk, encrypted: empty at the end.
    ahead: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
    done: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the beginning of an object.
    pub(crate) fn new(mut input: R, identity: &ArchiveIdentity) -> io::Result<Self> {
        let mut header = vec![0; MAGIC.len() + 1];
        input.read_exact(&mut header).map_err(|_| refused("it is too short to be an archived object"))?;
        let count = usize::from(header[MAGIC.len()]);
        if header[..MAGIC.len()] != MAGIC[..] || !(1..=MAX_RECIPIENTS).contains(&count) {
            return Err(refused("it is not an archived object"));
        }
        let begin = header.len();
        header.resize(begin + count * STANZA, 0);
        input.read_exact(&mut header[begin..]).map_err(|_| refused("it is cut off"))?;
        let ours =
            header[begin..].chunks_exact(STANZA).find(|stanza| stanza[..KEY] == identity.recipient().0);
        let ours = ours.ok_or_else(|| refused("it is not encrypted to this key"))?;
        let file_key = file_key(ours, identity)?;
        let cipher = Cipher::new(&file_key, &header)?;
        let ahead = chunk(&mut input)?;
        Ok(Self { input, cipher, ahead, plain: Vec::new(), at: 0, done: false })
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let next = if self.ahead.len() == CHUNK + TAG { chunk(&mut self.input)? } else { Vec::new() };
        let (last, mut bytes) = (next.is_empty(), std::mem::replace(&mut self.ahead, next));
        let aad = Aad::from(*self.cipher.header.as_bytes());
        let opened = self.cipher.key.open_in_place(nonce(self.cipher.number, last), aad, &mut bytes);
        let len = opened.map_err(|_| refused("it was changed or cut off: a part does not decrypt"))?.len();
        bytes.truncate(len);
        self.cipher.number += 1;
        (self.plain, self.at, self.done) = (bytes, 0, last);
        Ok(())
    }
}

fn file_key(stanza: &[u8], identity: &ArchiveIdentity) -> io::Result<Zeroizing<Vec<u8>>> {
    let failed = |_| refused("its file key does not decrypt");
    let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(&*identity.secret).map_err(failed)?;
    let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&stanza[KEY..KEY + 32]).map_err(failed)?;
    let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, Kem>(
        &OpModeR::Base,
        &secret,
        &encapsulated,
        INFO,
        &stanza[KEY + 32..],
        &stanza[..KEY],
    );
    opened.map(Zeroizing::new).map_err(failed)
}

/// Reads an encrypted chunk; empty at the end.
fn chunk(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(CHUNK + TAG);
    input.take((CHUNK + TAG) as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.plain.len() {
            if self.done {
                return Ok(0);
            }
            self.next_chunk()?;
        }
        let taken = buffer.len().min(self.plain.len() - self.at);
        buffer[..taken].copy_from_slice(&self.plain[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(plain: &[u8], recipients: &[ArchiveRecipient]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sealer = Sealer::new(&mut out, recipients).unwrap();
        // In odd pieces.
        plain.chunks(60_001).for_each(|piece| sealer.write_all(piece).unwrap());
        let (digest, length) = sealer.finish().unwrap();
        assert_eq!((digest, length), (Digest::of(&out), out.len() as u64));
        out
    }

    fn open(sealed: &[u8], identity: &ArchiveIdentity) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Opener::new(sealed, identity)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_recipient_reads_what_was_written_and_nobody_else() {
        let (one, two, other) =
            (ArchiveIdentity::generate(), ArchiveIdentity::generate(), ArchiveIdentity::generate());
        let recipients = [one.recipient().clone(), two.recipient().clone()];
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let plain: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let sealed = seal(&plain, &recipients);
            assert_eq!(open(&sealed, &one).unwrap(), plain, "{len}");
            assert_eq!(open(&sealed, &two).unwrap(), plain, "{len}");
            let refused = open(&sealed, &other).unwrap_err().to_string();
            assert_eq!(refused, "it is not encrypted to this key");
        }
        assert!(Sealer::new(Vec::new(), &[]).is_err());
        let many = vec![one.recipient().clone(); MAX_RECIPIENTS + 1];
        assert!(Sealer::new(Vec::new(), &many).is_err());
    }

    #[test]
    fn what_was_cut_moved_or_changed_does_not_open() {
        let identity = ArchiveIdentity::generate();
        let plain: Vec<u8> = (0..3 * CHUNK + 5).map(|i| (i % 251) as u8).collect();
        let sealed = seal(&plain, std::slice::from_ref(identity.recipient()));
        let (begin, full) = (MAGIC.len() + 1 + STANZA, CHUNK + TAG);
        for end in [0, 16, begin - 1, begin, begin + 1, begin + full, begin + 3 * full, sealed.len() - 1] {
            assert!(open(&sealed[..end], &identity).is_err(), "cut at {end}");
        }
        let mut swapped = sealed.clone();
        let (left, right) = swapped[begin..begin + 2 * full].split_at_mut(full);
        left.swap_with_slice(right);
        assert!(open(&swapped, &identity).is_err(), "moved");
        assert!(open(&[&sealed[..begin], &sealed[begin + full..]].concat(), &identity).is_err(), "left out");
        assert!(open(&[&sealed[..], &[0]].concat(), &identity).is_err(), "longer");
        let step = sealed.len() / 97;
        for at in (0..begin).chain((begin..sealed.len()).step_by(step)) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(open(&changed, &identity).is_err(), "byte {at}");
        }
    }
}
