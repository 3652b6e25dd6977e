//! Compressed bodies (`kombu/compression.py`).
//!
//! A body is compressed as a whole and the header `compression` says how; its other properties stay. Whatever we send
//! ourselves, we read what others compress.

use std::io::{Read, Write};

use lapin::message::Delivery;
use lapin::types::AMQPValue;

use crate::{DecodeError, Error, MAX_BODY_BYTES};

/// Name of the header.
pub(super) const HEADER: &str = "compression";

/// `kombu_compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `gzip`, which for kombu is zlib's format.
    Gzip,
    /// `bzip2`.
    Bzip2,
}

impl std::str::FromStr for Compression {
    type Err = Error;

    /// kombu's names, and `bz2`, as which oslo.messaging documents the second one.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "gzip" | "zlib" => Ok(Self::Gzip),
            "bzip2" | "bzip" | "bz2" => Ok(Self::Bzip2),
            _ => Err(Error::Config(format!("kombu_compression = {text}: use gzip or bzip2, or leave it unset"))),
        }
    }
}

impl Compression {
    /// What the header says.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/x-gzip",
            Self::Bzip2 => "application/x-bz2",
        }
    }

    pub(super) fn compress(self, body: &[u8]) -> Vec<u8> {
        let written = match self {
            Self::Gzip => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
            Self::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
                encoder.write_all(body).and_then(|()| encoder.finish())
            }
        };
        written.expect("writing to memory does not fail")
    }

    /// At most one byte more than a body may have: a small message must not fill the memory.
    fn decompress(self, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let limit = MAX_BODY_BYTES as u64 + 1;
        let mut plain = Vec::new();
        match self {
            Self::Gzip => flate2::read::ZlibDecoder::new(body).take(limit).read_to_end(&mut plain)?,
            Self::Bzip2 => bzip2::read::BzDecoder::new(body).take(limit).read_to_end(&mut plain)?,
        };
        Ok(plain)
    }
}

/// The body of a message as its sender wrote it.
///
/// # Errors
/// [`DecodeError`] for a method that is not known, and for what is not what the header says.
pub(super) fn plain_body(delivery: &Delivery) -> Result<std::borrow::Cow<'_, [u8]>, DecodeError> {
    let headers = delivery.properties.headers().as_ref();
    let method = match headers.and_then(|headers| headers.inner().get(HEADER)) {
        None | Some(AMQPValue::Void) => return Ok(delivery.data.as_slice().into()),
        Some(AMQPValue::LongString(method)) => method.to_string(),
        Some(AMQPValue::ShortString(method)) => method.to_string(),
        Some(other) => format!("{other:?}"),
    };
    let known = [Compression::Gzip, Compression::Bzip2].into_iter().find(|known| known.content_type() == method);
    let Some(known) = known else {
        let reason =
            format!("compressed as {method}: set kombu_compression to gzip or bzip2 at the sender, or unset it");
        return Err(DecodeError::new(reason));
    };
    let plain = known.decompress(&delivery.data);
    plain.map(Into::into).map_err(|error| DecodeError::new(format!("not compressed as {method}, as it says: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Bzip2];

    #[test]
    fn what_was_compressed_comes_back() {
        for method in BOTH {
            for body in [&b""[..], b"{}", &b"volume ".repeat(10_000)] {
                assert_eq!(method.decompress(&method.compress(body)).unwrap(), body, "{method:?}");
            }
            assert!(method.compress(&b"volume ".repeat(10_000)).len() < 1000);
        }
    }

    #[test]
    fn a_bomb_is_not_unpacked_further_than_a_body_may_be_long() {
        for method in BOTH {
            let bomb = method.compress(&vec![b' '; MAX_BODY_BYTES * 2]);
            let plain = method.decompress(&bomb).unwrap();
            assert_eq!(plain.len(), MAX_BODY_BYTES + 1);
            assert!(crate::decode(&plain).unwrap_err().reason.contains("limit"));
        }
    }

    #[test]
    fn the_names_are_kombus_and_others_are_refused() {
        for (name, method) in [("gzip", BOTH[0]), ("zlib", BOTH[0]), ("bzip2", BOTH[1]), ("bz2", BOTH[1])] {
            assert_eq!(name.parse::<Compression>().unwrap(), method);
        }
        let refused = "lzma".parse::<Compression>().unwrap_err().to_string();
        assert!(refused.contains("kombu_compression = lzma: use gzip or bzip2"), "{refused}");
    }
}
