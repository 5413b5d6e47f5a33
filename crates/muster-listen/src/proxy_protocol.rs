//! Recognizes the PROXY protocol, in which a load balancer sends the client's address before the client's own bytes.
//!
//! It is not supported: anybody who can connect could claim any address, so that it would need a list of trusted load
//! balancers. Unrecognized, it would look like a failed TLS handshake or malformed HTTP of the agents.

/// Length of the longer signature, that of version 2.
pub(super) const SIGNATURE: usize = V2.len();
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes after which version 2 is recognized: four of them could also be empty lines before a request (RFC 9112 §2.2).
const V2_SUFFICES: usize = 5;

/// Returns whether the bytes, which are neither a TLS handshake nor a request, begin with a header of version 1 or 2.
/// Load balancers send the header at once, so that it is not split.
pub(super) fn is_header(input: &[u8]) -> bool {
    let seen = &input[..input.len().min(SIGNATURE)];
    input.starts_with(V1) || (seen.len() >= V2_SUFFICES && V2.starts_with(seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_recognized() {
        for header in [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".as_slice(), b"PROXY UNKNOWN\r\n", V2, &V2[..5]] {
            assert!(is_header(header), "{header:?}");
        }
        for other in
            [b"".as_slice(), b"PRO", b"PROXYING /", b"POST / HTTP/1.1", b"\r\n\r\n", b"\r\n\r\nGET /", b"\x16\x03\x01"]
        {
            assert!(!is_header(other), "{other:?}");
        }
    }
}
