//! Digests, and reading with them.

use std::{
    fmt,
    io::{self, Read},
};

use serde::{Deserialize, Deserializer, de};
use sha2::{Digest as _, Sha256, Sha512};

use crate::import::{entry::shown, error::ImportError};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Algorithm {
    Sha256,
    Sha512,
}

impl Algorithm {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// What a content's hash has to be. Its text is safe as a file's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Digest {
    algorithm: Algorithm,
    hex: String,
}

impl Digest {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (algorithm, hex) = match text.split_once(':') {
            Some(("sha256", hex)) => (Algorithm::Sha256, hex),
            Some(("sha512", hex)) => (Algorithm::Sha512, hex),
            _ => return Err(format!("{} is no known digest", shown(text.as_bytes()))),
        };
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() != algorithm.hex_digits() || !hex.bytes().all(is_hex) {
            return Err(format!("{} is no digest", shown(text.as_bytes())));
        }
        Ok(Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }

    #[cfg(test)]
    pub(super) fn of_sha256(content: &[u8]) -> Self {
        Self {
            algorithm: Algorithm::Sha256,
            hex: hex(&Sha256::digest(content)),
        }
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[derive(Debug)]
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// Reads, and hashes what goes through.
#[derive(Debug)]
pub(super) struct HashingReader<R> {
    reader: R,
    expected: Digest,
    hasher: Hasher,
    read_bytes: u64,
}

impl<R: Read> HashingReader<R> {
    pub(super) fn new(reader: R, expected: &Digest) -> Self {
        Self {
            reader,
            expected: expected.clone(),
            hasher: match expected.algorithm {
                Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
                Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
            },
            read_bytes: 0,
        }
    }

    /// Once all was read: whether it was what was to come.
    pub(super) fn check(self, size_bytes: u64) -> Result<(), ImportError> {
        let found = match self.hasher {
            Hasher::Sha256(hasher) => hex(&hasher.finalize()),
            Hasher::Sha512(hasher) => hex(&hasher.finalize()),
        };
        if found != self.expected.hex {
            return Err(ImportError::bad(format!(
                "its digest is wrong: it is {}:{found}",
                self.expected.algorithm.as_str()
            )));
        }
        if self.read_bytes != size_bytes {
            return Err(ImportError::bad(format!(
                "it is of {} bytes, and said to be of {size_bytes}",
                self.read_bytes
            )));
        }
        Ok(())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(&buffer[..read]),
            Hasher::Sha512(hasher) => hasher.update(&buffer[..read]),
        }
        self.read_bytes += read as u64;
        Ok(read)
    }
}

fn hex(hash: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    hash.iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_33_a_digest_that_could_be_a_path_is_none() {
        for text in [
            "sha256:../../../etc/passwd",
            "../x:abc",
            "sha256:",
            "md5:d41d8cd98f00b204e9800998ecf8427e",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha256:{}/", "a".repeat(63)),
        ] {
            assert!(Digest::parse(text).is_err(), "{text}");
        }
        let empty = Digest::of_sha256(b"");
        assert_eq!(
            empty.to_string(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(Digest::parse(&empty.to_string()), Ok(empty));
    }

    #[test]
    fn another_content_or_length_fails() {
        let expected = Digest::of_sha256(b"content");
        let read = |content: &'static [u8], size| {
            let mut reader = HashingReader::new(content, &expected);
            io::copy(&mut reader, &mut io::sink()).unwrap();
            reader.check(size)
        };
        read(b"content", 7).unwrap();
        assert!(read(b"content", 8).is_err());
        let error = read(b"contents", 8).unwrap_err().to_string();
        assert!(error.contains("digest is wrong"), "{error}");
    }
}
