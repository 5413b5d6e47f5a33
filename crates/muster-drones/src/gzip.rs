//! Compression of requests and responses. Each thread has one compressor, because its state is larger than that of a
//! drone.

use std::cell::RefCell;
use std::io::Read;

use flate2::{Compress, Compression, FlushCompress, Status};

/// Maximum size of a response after decompression.
const MAX_REPLY: u64 = 64 << 20;

thread_local! {
    // Level 1, because the default level of Go's client would cost the drones more CPU time than the server.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new_gzip(Compression::fast(), 15));
}

/// Compresses `plain` into one gzip member.
///
/// # Errors
/// Never in practice, because the buffer is large enough for incompressible input.
pub fn pack(plain: &[u8]) -> anyhow::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        // Incompressible input becomes slightly larger.
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let status = compressor.compress_vec(plain, &mut packed, FlushCompress::Finish)?;
        anyhow::ensure!(status == Status::StreamEnd, "compressed data exceeds its buffer");
        Ok(packed)
    })
}

/// Decompresses any number of gzip members.
///
/// # Errors
/// If the data is malformed or too large.
pub fn unpack(packed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(packed.len() * 4);
    flate2::read::MultiGzDecoder::new(packed).take(MAX_REPLY + 1).read_to_end(&mut plain)?;
    anyhow::ensure!(plain.len() as u64 <= MAX_REPLY, "response exceeds {MAX_REPLY} bytes after decompression");
    Ok(plain)
}

/// Decompresses at most the first `length` bytes.
///
/// # Errors
/// If the data is malformed.
pub fn head(packed: &[u8], length: u64) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(usize::try_from(length)?);
    flate2::read::MultiGzDecoder::new(packed).take(length).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compressor_is_reusable_and_members_are_concatenated() {
        let mut row = pack(b"one ").unwrap();
        row.extend(pack(b"two").unwrap());
        row.extend(pack(&[]).unwrap());
        assert_eq!(unpack(&row).unwrap(), b"one two");
        assert_eq!((head(&row, 5).unwrap(), head(&row, 99).unwrap()), (b"one t".to_vec(), b"one two".to_vec()));
    }

    #[test]
    fn incompressible_data_fits() {
        let noise: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(unpack(&pack(&noise).unwrap()).unwrap(), noise);
    }

    #[test]
    fn malformed_data_is_an_error() {
        assert!(unpack(b"{}").is_err());
    }
}
