//! Looks at a request's head as its bytes come by, for what hyper does not tell: whether it states a length twice, in
//! `Content-Length` and by `Transfer-Encoding`. Whoever sends both means two readers to see two requests (D23).

/// Bytes of a line that are looked at: longer than both names and the end of a request line.
const LOOK: usize = 20;

/// What was seen of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadScan {
    start: [u8; LOOK],
    start_len: usize,
    /// The line's last bytes before its end.
    end: [u8; 9],
    first_line: Option<bool>,
    length: bool,
    encoding: bool,
    done: bool,
}

/// What a whole head looked like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Nothing is wrong with it.
    Clear,
    /// It states its length twice.
    Twice,
    /// Its beginning came along with the request before it and was not seen.
    Unseen,
}

impl HeadScan {
    /// Looks at bytes that came.
    pub fn look(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.done && !rest.is_empty() {
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return self.add(rest) };
            self.add(&rest[..end]);
            self.line();
            rest = &rest[end + 1..];
        }
    }

    /// The verdict, once hyper has taken the head for whole.
    pub fn framing(&self) -> Framing {
        match (self.done && self.first_line == Some(true), self.length && self.encoding) {
            (false, _) => Framing::Unseen,
            (true, true) => Framing::Twice,
            (true, false) => Framing::Clear,
        }
    }

    fn add(&mut self, part: &[u8]) {
        let take = part.len().min(LOOK - self.start_len);
        self.start[self.start_len..self.start_len + take].copy_from_slice(&part[..take]);
        self.start_len += take;
        let tail = &part[part.len().saturating_sub(self.end.len())..];
        self.end.rotate_left(tail.len());
        let at = self.end.len() - tail.len();
        self.end[at..].copy_from_slice(tail);
    }

    fn line(&mut self) {
        let line = self.start[..self.start_len].trim_ascii();
        match (self.first_line, line.is_empty()) {
            // Empty lines before a request are allowed.
            (None, true) => {}
            (None, false) => self.first_line = Some(self.end.trim_ascii_end().ends_with(b"HTTP/1.1")),
            (Some(_), true) => self.done = true,
            (Some(_), false) => {
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii();
                self.length |= name.eq_ignore_ascii_case(b"content-length");
                self.encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
            }
        }
        self.start_len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(head: &str, step: usize) -> Framing {
        let mut scan = HeadScan::default();
        head.as_bytes().chunks(step).for_each(|part| scan.look(part));
        scan.framing()
    }

    #[test]
    fn d23_two_lengths_are_seen_however_the_bytes_come() {
        let both = "\r\nPOST /a HTTP/1.1\r\nhost: h\r\ncontent-LENGTH: 4\r\nX-Long: 0123456789012345678901234567\r\n\
                    Transfer-Encoding: chunked\r\n\r\nbody";
        let one =
            "POST /content-length: HTTP/1.1\r\nhost: h\r\nx: content-length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        for step in [1, 2, 3, 7, 19, 20, 21, 1000] {
            assert_eq!(scan(both, step), Framing::Twice, "step {step}");
            assert_eq!(scan(one, step), Framing::Clear, "step {step}");
        }
    }

    #[test]
    fn a_head_whose_beginning_is_missing_is_told() {
        assert_eq!(scan("st: h\r\nTransfer-Encoding: chunked\r\n\r\n", 100), Framing::Unseen);
        assert_eq!(scan("", 1), Framing::Unseen);
        assert_eq!(scan("POST /a HTTP/1.1\r\nhost: h\r\n", 100), Framing::Unseen);
    }
}
