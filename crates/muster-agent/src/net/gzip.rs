//! gzip with a limit on the decompressed size.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// Compresses `bytes`.
pub fn compress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Decompresses all members of `bytes`; `None` if the result exceeds `limit`.
pub fn decompress(bytes: &[u8], limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(bytes).take(bound).read_to_end(&mut out)?;
    Ok((out.len() <= limit).then_some(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_members_are_concatenated_and_bombs_stop_at_the_limit() {
        let mut two = compress(b"one ").unwrap();
        two.extend(compress(b"two").unwrap());
        assert_eq!(decompress(&two, 100).unwrap().unwrap(), b"one two");
        let bomb = compress(&vec![0; 1 << 20]).unwrap();
        assert_eq!(decompress(&bomb, 1 << 10).unwrap(), None);
        assert!(decompress(b"no gzip", 10).is_err());
    }
}
