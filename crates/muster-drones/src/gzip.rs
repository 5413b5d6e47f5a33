//! Compression of requests and of replies, with one compressor a thread: its state is larger than what a drone keeps.

use std::cell::RefCell;
use std::io::Read;

use flate2::{Compress, Compression, FlushCompress, Status};

/// Largest reply that is unpacked.
const MAX_REPLY: u64 = 64 << 20;

thread_local! {
    // The level that Go's client writes at by default would cost us more than the server: 1, as Fleet Server answers.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new_gzip(Compression::fast(), 15));
}

/// One gzip member that holds `plain`.
///
/// # Errors
/// When the compressor fails, which it has no reason to.
pub fn pack(plain: &[u8]) -> anyhow::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        let mut packed = Vec::with_capacity(plain.len() + 64);
        let status = compressor.compress_vec(plain, &mut packed, FlushCompress::Finish)?;
        anyhow::ensure!(status == Status::StreamEnd, "gzip grew beyond its buffer");
        Ok(packed)
    })
}

/// What `packed` holds: any number of gzip members.
///
/// # Errors
/// When it is no gzip or unpacks to more than a server may send.
pub fn unpack(packed: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(packed.len() * 4);
    flate2::read::MultiGzDecoder::new(packed).take(MAX_REPLY + 1).read_to_end(&mut plain)?;
    anyhow::ensure!(plain.len() as u64 <= MAX_REPLY, "a reply unpacks to more than {MAX_REPLY} bytes");
    Ok(plain)
}

/// The first `length` bytes of what `packed` holds, or fewer if it holds fewer.
///
/// # Errors
/// When it is no gzip.
pub fn head(packed: &[u8], length: u64) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(usize::try_from(length)?);
    flate2::read::MultiGzDecoder::new(packed).take(length).read_to_end(&mut plain)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_again_and_again_and_unpacks_members_in_a_row() {
        let mut row = pack(b"one ").unwrap();
        row.extend(pack(b"two").unwrap());
        row.extend(pack(&[]).unwrap());
        assert_eq!(unpack(&row).unwrap(), b"one two");
        assert_eq!((head(&row, 5).unwrap(), head(&row, 99).unwrap()), (b"one t".to_vec(), b"one two".to_vec()));
    }

    #[test]
    fn what_does_not_compress_still_fits() {
        let noise: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert_eq!(unpack(&pack(&noise).unwrap()).unwrap(), noise);
    }

    #[test]
    fn no_gzip_is_an_error() {
        assert!(unpack(b"{}").is_err());
    }
}
