//! Answers packed for clients that ask for it: with zstd or gzip, as `Accept-Encoding` says. Never what comes piece by
//! piece while it happens, nor what is so small that packing gains nothing.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tokio::sync::mpsc;
use warp::http::header::ACCEPT_ENCODING;
use warp::http::{HeaderMap, HeaderValue};

use super::connections::Bounds;
use super::limits;

/// How an answer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Zstd,
    Gzip,
}

impl Coding {
    pub(super) const fn name(self) -> HeaderValue {
        match self {
            Self::Zstd => HeaderValue::from_static("zstd"),
            Self::Gzip => HeaderValue::from_static("gzip"),
        }
    }

    /// A whole answer, packed. What is large is packed where it holds up nobody, a few at once.
    pub(super) async fn pack(self, bytes: Vec<u8>, bounds: &Bounds) -> io::Result<Vec<u8>> {
        if bytes.len() <= limits::LARGE_BODY_BYTES {
            return self.packed(&bytes);
        }
        let right = std::sync::Arc::clone(&bounds.readers).acquire_owned().await;
        let packing = tokio::task::spawn_blocking(move || {
            let packed = self.packed(&bytes);
            drop(right);
            packed
        });
        packing.await.map_err(io::Error::other)?
    }

    fn packed(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => Ok(compress_to_vec(bytes, CompressionLevel::Fastest)),
            Self::Gzip => {
                let mut encoder = gzip();
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

fn gzip() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// How much it wants each, in thousandths; 0: not at all.
    zstd: u16,
    gzip: u16,
    plain: u16,
}

impl Wanted {
    /// As its headers say. Who says nothing takes what is not packed.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let (mut zstd, mut gzip, mut plain, mut others) = (None, None, None, None);
        let lines = headers.get_all(ACCEPT_ENCODING).iter();
        let items = lines.flat_map(|line| line.to_str().unwrap_or_default().split(','));
        for item in items {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| {
                let (name, value) = part.split_once('=')?;
                name.trim()
                    .eq_ignore_ascii_case("q")
                    .then(|| thousandths(value.trim()))
            });
            let weight = Some(weight.unwrap_or(1_000));
            match name.as_str() {
                "zstd" => zstd = weight,
                "gzip" | "x-gzip" => gzip = weight,
                "identity" => plain = weight,
                "*" => others = weight,
                _ => {}
            }
        }
        Self {
            zstd: zstd.or(others).unwrap_or(0),
            gzip: gzip.or(others).unwrap_or(0),
            // What nobody speaks of will do, and anything that is asked for is better.
            plain: plain.or(others.filter(|weight| *weight == 0)).unwrap_or(1),
        }
    }

    /// How an answer of so many bytes is packed for it; `None`: not at all.
    pub(super) fn best(self, bytes: usize) -> Option<Coding> {
        if bytes < limits::PACKED_BYTES_MIN && self.plain > 0 {
            return None;
        }
        let best = match self.zstd >= self.gzip {
            true => (self.zstd, Coding::Zstd),
            false => (self.gzip, Coding::Gzip),
        };
        (best.0 > 0 && best.0 >= self.plain).then_some(best.1)
    }

    /// Whether what is written part by part is packed for it, which gzip can do.
    pub(super) const fn packs_parts(self) -> bool {
        self.gzip > 0 && self.gzip >= self.plain
    }
}

/// A weight such as `0.5`. One that makes no sense weighs nothing.
fn thousandths(text: &str) -> u16 {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let is_number = rest.len() <= 3 && rest.bytes().all(|digit| digit.is_ascii_digit());
    match whole {
        "1" if is_number => 1_000,
        "0" if is_number => format!("{rest:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

/// Parts of an answer, as they are made.
pub(super) type Parts = mpsc::Receiver<io::Result<Bytes>>;

/// Parts of an answer, packed as they come: each can be read before the next one is there.
pub(super) fn packed_parts(parts: Parts) -> impl Stream<Item = io::Result<Bytes>> {
    let next = |state: Option<(Parts, GzEncoder<Vec<u8>>)>| async move {
        let (mut parts, mut encoder) = state?;
        match parts.recv().await {
            Some(Ok(part)) => {
                let packed = encoder.write_all(&part).and_then(|()| encoder.flush());
                let packed = packed.map(|()| std::mem::take(encoder.get_mut()).into());
                Some((packed, Some((parts, encoder))))
            }
            // Cut off, as the parts are.
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((encoder.finish().map(Bytes::from), None)),
        }
    };
    stream::unfold(Some((parts, gzip())), next)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn wanted(text: &'static str) -> Wanted {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
        Wanted::of(&headers)
    }

    #[test]
    fn the_client_says_how_it_is_packed_and_whether() {
        let check = |text, want| assert_eq!(wanted(text).best(10_000), want, "{text}");
        assert_eq!(Wanted::of(&HeaderMap::new()).best(10_000), None);
        check("", None);
        check("gzip", Some(Coding::Gzip));
        check("x-gzip", Some(Coding::Gzip));
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("GZIP;Q=1, zstd;q=0.9", Some(Coding::Gzip));
        check("br", None);
        check("*", Some(Coding::Zstd));
        check("*, zstd;q=0", Some(Coding::Gzip));
        check("gzip;q=0", None);
        check("gzip;q=0, *", Some(Coding::Zstd));
        check("*;q=0", None);
        check("identity", None);
        check("identity, gzip;q=0.5", None);
        check("identity;q=0.5, gzip", Some(Coding::Gzip));
        check("identity, gzip", Some(Coding::Gzip));
        check("gzip;q=0.001", Some(Coding::Gzip));
        check("gzip;q=2", None);
        check("gzip;q=x", None);
    }

    #[test]
    fn what_is_small_is_not_packed_unless_the_client_takes_nothing_else() {
        assert_eq!(wanted("gzip").best(100), None);
        assert_eq!(wanted("gzip, identity;q=0").best(100), Some(Coding::Gzip));
        assert_eq!(wanted("gzip, *;q=0").best(100), Some(Coding::Gzip));
    }

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let mut random = 7_u64;
        let mut noise = Vec::new();
        for _ in 0..200_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            noise.push((random >> 56) as u8);
        }
        let lists: Vec<String> = (0..50_000)
            .map(|n| format!("{{\"n\":{n},\"is\":true}}"))
            .collect();
        for bytes in [
            Vec::new(),
            b"a".to_vec(),
            vec![b' '; 1 << 20],
            noise,
            lists.join(",").into_bytes(),
        ] {
            let packed = Coding::Gzip.packed(&bytes).unwrap();
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&*packed)
                .read_to_end(&mut out)
                .unwrap();
            assert!(out == bytes);
            let packed = Coding::Zstd.packed(&bytes).unwrap();
            let mut out = Vec::new();
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(&*packed).unwrap();
            decoder.read_to_end(&mut out).unwrap();
            assert!(out == bytes);
        }
    }
}
