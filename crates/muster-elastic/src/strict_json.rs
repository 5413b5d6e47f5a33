//! A strict JSON validator that runs before decoding (D22): one pass, no recursion, bounded memory.
//!
//! It rejects what decoders accept or resolve silently: invalid UTF-8, duplicate keys at any depth, lone surrogates,
//! trailing data and excessive nesting. Our own scanner, because serde can't see duplicate keys inside raw values, and
//! checking them there would mean to build a tree of a document that is only stored as text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

/// Maximum nesting of arrays and objects; serde_json has the same limit.
pub const MAX_DEPTH: usize = 128;
/// Maximum keys of all objects that are open at a time. Agents stay far below.
pub const MAX_OPEN_KEYS: usize = 65_536;

/// Maximum values in a text. A real check-in has a few thousand. A value of two bytes may cost a decoder fifty times as
/// much memory.
pub const MAX_NODES: usize = 200_000;

/// What is wrong with a text, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {position}")]
pub struct BadJson {
    /// The problem.
    pub problem: Problem,
    /// Its offset in bytes.
    pub position: usize,
}

/// A reason to reject a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not UTF-8.
    #[error("invalid UTF-8")]
    Utf8,
    /// Not JSON.
    #[error("invalid JSON")]
    Syntax,
    /// The text is truncated.
    #[error("unexpected end of JSON")]
    End,
    /// Something follows the value.
    #[error("trailing data")]
    Trailing,
    /// An object has a key twice.
    #[error("duplicate key")]
    DuplicateKey,
    /// An escaped half of a surrogate pair, which no Rust string can hold.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested too deep: more than {MAX_DEPTH} levels")]
    TooDeep,
    /// More than [`MAX_OPEN_KEYS`].
    #[error("too many keys: more than {MAX_OPEN_KEYS} in open objects")]
    TooManyKeys,
    /// More than [`MAX_NODES`].
    #[error("too many values: more than {MAX_NODES}")]
    TooManyNodes,
}

/// Checks that `bytes` are a single JSON value, and returns them as a string.
pub fn check(bytes: &[u8]) -> Result<&str, BadJson> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| BadJson { problem: Problem::Utf8, position: error.valid_up_to() })?;
    Scanner::new(bytes, None).run()?;
    Ok(text)
}

/// Returns the key of the member of the outermost object that contains a position, as it is written. The text up to there
/// must be JSON.
pub fn member_at(bytes: &[u8], position: usize) -> Option<String> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let (mut start, mut member) = (0, None);
    for (at, byte) in bytes.iter().enumerate().take(position) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => {
                in_string = !in_string;
                if in_string {
                    // At an opening quote, the text begins. A closing one at depth 1 ends a key, or a value that a
                    // comma follows.
                    start = at + 1;
                } else if depth == 1 {
                    member = bytes.get(start..at);
                }
            }
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            // Without this, a string that is a value would count as a key.
            b',' if depth == 1 => member = None,
            _ => {}
        }
    }
    let member = member.filter(|_| depth > 1 && bytes.first() == Some(&b'{'))?;
    Some(String::from_utf8_lossy(member).into_owned())
}

/// A member of the outermost object whose value may have been checked before.
#[derive(Clone, Copy)]
pub struct Known<'k> {
    /// The member's key.
    pub key: &'k str,
    /// Returns the length of the known value if the given text begins with it. The value must be an object: any other
    /// value could be a prefix of a longer one.
    pub length: &'k dyn Fn(&[u8]) -> Option<usize>,
}

/// Like [`check`], but skips a known value. Also returns the range of the skipped value.
pub fn check_but<'a>(bytes: &'a [u8], known: Known<'_>) -> Result<(&'a str, Option<Range<usize>>), BadJson> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| BadJson { problem: Problem::Utf8, position: error.valid_up_to() })?;
    let known = Some((known, None));
    let known = Scanner::new(bytes, known).run()?;
    Ok((text, known.and_then(|(_, place)| place)))
}

/// Offsets of a key in the text, without quotes. 32 bits each, since many keys may be open.
#[derive(Clone, Copy)]
struct Key {
    start: u32,
    end: u32,
    escaped: bool,
}

/// An array or object that is not closed yet.
enum Open {
    Array,
    /// An object with the index of its first key in `keys`.
    Object(usize),
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    keys: Vec<Key>,
    nodes: usize,
    known: Option<Passing<'a>>,
}

/// A value that may be skipped, and its range once it is found.
type Passing<'a> = (Known<'a>, Option<Range<usize>>);

type Step<T = ()> = Result<T, BadJson>;

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], known: Option<Passing<'a>>) -> Self {
        // Room for what a check-in has open at one time.
        Self { bytes, at: 0, open: Vec::with_capacity(8), keys: Vec::with_capacity(32), nodes: 0, known }
    }

    fn run(mut self) -> Step<Option<Passing<'a>>> {
        // Offsets of keys have 32 bits. Bodies are far smaller, so this only keeps the casts correct.
        if self.bytes.len() > u32::MAX as usize {
            return self.fail(Problem::TooManyKeys);
        }
        // A loop with a stack on the heap, not recursion: the nesting comes from the network, the thread's stack is
        // small.
        loop {
            let opened = self.value()?;
            if !opened && self.close_all()? {
                break;
            }
        }
        self.space();
        if self.at < self.bytes.len() { self.fail(Problem::Trailing) } else { Ok(self.known) }
    }

    /// Skips the next value if it is the known one.
    fn pass_over(&mut self) -> bool {
        // Once only: a second member of the same name is a duplicate key and must be scanned as such.
        let Some((known, place @ None)) = &mut self.known else { return false };
        let Some(key) = self.keys.last().filter(|key| self.open.len() == 1 && !key.escaped) else { return false };
        let rest = &self.bytes[self.at..];
        if raw(self.bytes, key) != known.key.as_bytes() || !rest.starts_with(b"{") {
            return false;
        }
        // The callback compares a digest of these bytes, so they were scanned before, with the same result.
        let Some(length) = (known.length)(rest).filter(|length| *length <= rest.len()) else { return false };
        *place = Some(self.at..self.at + length);
        self.at += length;
        true
    }

    /// Reads a value. Returns true when it opened an array or object, whose first value comes next.
    fn value(&mut self) -> Step<bool> {
        self.space();
        // Counted as no node: its values were counted when the document was read for the first time.
        if self.known.is_some() && self.pass_over() {
            return Ok(false);
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return self.fail(Problem::TooManyNodes);
        }
        match self.peek()? {
            b'{' => self.open_object(),
            b'[' => self.open_array(),
            b'"' => self.string().map(|_| false),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn open_object(&mut self) -> Step<bool> {
        self.deeper()?;
        self.at += 1;
        self.space();
        // An empty object never enters the stack: `close_all` expects a value before the closing brace.
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(false);
        }
        self.open.push(Open::Object(self.keys.len()));
        self.key()?;
        Ok(true)
    }

    fn open_array(&mut self) -> Step<bool> {
        self.deeper()?;
        self.at += 1;
        self.space();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(false);
        }
        self.open.push(Open::Array);
        Ok(true)
    }

    fn deeper(&self) -> Step {
        if self.open.len() >= MAX_DEPTH { self.fail(Problem::TooDeep) } else { Ok(()) }
    }

    /// After a value, closes the arrays and objects that end here, or advances to the next value. Returns true when the
    /// outermost value has ended.
    fn close_all(&mut self) -> Step<bool> {
        loop {
            let Some(open) = self.open.last() else { return Ok(true) };
            let (first_key, end) = match open {
                Open::Array => (None, b']'),
                Open::Object(first) => (Some(*first), b'}'),
            };
            self.space();
            let byte = self.peek()?;
            if byte != b',' && byte != end {
                return self.fail(Problem::Syntax);
            }
            self.at += 1;
            // After a comma, an object continues with a key and an array with a value. A comma before the end is thus
            // an error.
            match (byte, first_key) {
                (b',', Some(_)) => return self.key().map(|()| false),
                (b',', None) => return Ok(false),
                (_, Some(first)) => self.forget_keys(first)?,
                (_, None) => {}
            }
            self.open.pop();
        }
    }

    /// Reads a key and its colon.
    fn key(&mut self) -> Step {
        self.space();
        if self.peek()? != b'"' {
            return self.fail(Problem::Syntax);
        }
        if self.keys.len() >= MAX_OPEN_KEYS {
            return self.fail(Problem::TooManyKeys);
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        self.keys.push(Key { start: start as u32, end: (self.at - 1) as u32, escaped });
        self.space();
        if self.peek()? != b':' {
            return self.fail(Problem::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    /// Compares the keys of a complete object and drops them. Few keys are compared pairwise, which is faster than
    /// sorting; many are sorted, so that an object with 65,536 keys does not take quadratic time.
    fn forget_keys(&mut self, first: usize) -> Step {
        let bytes = self.bytes;
        let keys = &mut self.keys[first..];
        let duplicate = if keys.len() <= 8 { pairwise(bytes, keys) } else { sorted(bytes, keys) };
        if let Some(position) = duplicate {
            return Err(BadJson { problem: Problem::DuplicateKey, position });
        }
        self.keys.truncate(first);
        Ok(())
    }

    /// Reads a string from its opening quote. Returns whether it contains escapes.
    fn string(&mut self) -> Step<bool> {
        self.at += 1;
        let mut escaped = false;
        loop {
            // The text is valid UTF-8, so no byte of a multi-byte character can look like a quote or a backslash.
            self.at += plain_length(&self.bytes[self.at..]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(escaped);
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.fail(Problem::Syntax),
            }
        }
    }

    fn escape(&mut self) -> Step {
        let start = self.at;
        self.at += 1;
        match self.peek()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                // A high surrogate must be followed by an escaped low one; any other surrogate is alone.
                let lone = Err(BadJson { problem: Problem::LoneSurrogate, position: start });
                match self.hex()? {
                    0xd800..=0xdbff if !self.bytes[self.at..].starts_with(b"\\u") => return lone,
                    0xd800..=0xdbff => {
                        self.at += 1;
                        if !matches!(self.hex()?, 0xdc00..=0xdfff) {
                            return lone;
                        }
                    }
                    0xdc00..=0xdfff => return lone,
                    _ => {}
                }
            }
            _ => return self.fail(Problem::Syntax),
        }
        Ok(())
    }

    /// Reads `uXXXX`.
    fn hex(&mut self) -> Step<u32> {
        let mut code = 0;
        for _ in 0..4 {
            self.at += 1;
            let Some(digit) = char::from(self.peek()?).to_digit(16) else { return self.fail(Problem::Syntax) };
            code = code * 16 + digit;
        }
        self.at += 1;
        Ok(code)
    }

    fn word(&mut self, word: &[u8]) -> Step<bool> {
        let rest = &self.bytes[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            return Ok(false);
        }
        // A literal that stops at the end of the text is truncated, not misspelled: the message differs.
        self.fail(if word.starts_with(rest) { Problem::End } else { Problem::Syntax })
    }

    fn number(&mut self) -> Step<bool> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            // JSON allows no leading zeros.
            b'0' => self.at += 1,
            _ => self.digits()?,
        }
        if self.eat(b".") {
            self.digits()?;
        }
        if self.eat(b"eE") {
            self.eat(b"+-");
            self.digits()?;
        }
        Ok(false)
    }

    /// Reads one or more digits.
    fn digits(&mut self) -> Step {
        if !self.peek()?.is_ascii_digit() {
            return self.fail(Problem::Syntax);
        }
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn eat(&mut self, any_of: &[u8]) -> bool {
        let found = self.bytes.get(self.at).is_some_and(|byte| any_of.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Step<u8> {
        self.bytes.get(self.at).copied().ok_or(BadJson { problem: Problem::End, position: self.at })
    }

    fn fail<T>(&self, problem: Problem) -> Step<T> {
        Err(BadJson { problem, position: self.at })
    }
}

/// Returns the number of bytes before the first quote, backslash or control character, compared eight at a time.
/// Strings are most of a check-in, so this loop determines the speed of the scanner.
fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let stops = stops(u64::from_le_bytes(*word));
        // Little-endian, so the lowest set bit belongs to the first byte; only that one is reliable.
        if stops != 0 {
            return index * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let plain = rest.iter().position(|byte| is_stop(*byte));
    words.len() * 8 + plain.unwrap_or(rest.len())
}

fn is_stop(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | 0..=0x1f)
}

/// Sets the high bit of the first byte for which [`is_stop`] holds, and no bit below it. Bits above it may be wrong, because
/// the subtraction borrows from them.
fn stops(word: u64) -> u64 {
    // The "has a byte less than n" trick: subtracting n from each byte sets its high bit if it was smaller, and `& !word`
    // excludes bytes whose high bit was set before (UTF-8 continuation bytes, which are no stops).
    const ONES: u64 = 0x0101_0101_0101_0101;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & (ONES << 7)
}

/// Returns the offset of the first key that equals an earlier one.
fn pairwise(bytes: &[u8], keys: &[Key]) -> Option<usize> {
    let later = keys.iter().enumerate().skip(1);
    let mut duplicates = later.filter(|(i, key)| keys[..*i].iter().any(|other| same(bytes, other, key)));
    duplicates.next().map(|(_, key)| key.start as usize)
}

fn sorted(bytes: &[u8], keys: &mut [Key]) -> Option<usize> {
    // Equal keys stay in the order of the text, so that the reported position is that of the second one.
    keys.sort_unstable_by(|a, b| compare(bytes, a, b).then(a.start.cmp(&b.start)));
    let duplicates = keys.windows(2).filter(|pair| compare(bytes, &pair[0], &pair[1]).is_eq());
    duplicates.map(|pair| pair[1].start as usize).min()
}

/// Returns whether two keys are equal. Faster than [`compare`], because most keys differ in length.
fn same(bytes: &[u8], a: &Key, b: &Key) -> bool {
    if a.escaped || b.escaped { unescaped(bytes, a) == unescaped(bytes, b) } else { raw(bytes, a) == raw(bytes, b) }
}

fn compare(bytes: &[u8], a: &Key, b: &Key) -> Ordering {
    if a.escaped || b.escaped {
        unescaped(bytes, a).cmp(&unescaped(bytes, b))
    } else {
        raw(bytes, a).cmp(raw(bytes, b))
    }
}

fn raw<'a>(bytes: &'a [u8], key: &Key) -> &'a [u8] {
    &bytes[key.start as usize..key.end as usize]
}

/// Returns the key with escapes decoded, as a decoder sees it: `"a"` and `"\u0061"` are duplicates.
fn unescaped<'a>(bytes: &'a [u8], key: &Key) -> Cow<'a, [u8]> {
    if !key.escaped {
        return raw(bytes, key).into();
    }
    // The scanner has validated the string, so decoding does not fail.
    let quoted = &bytes[key.start as usize - 1..=key.end as usize];
    serde_json::from_slice::<String>(quoted).map_or(raw(bytes, key).into(), |text| text.into_bytes().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn problem(text: impl AsRef<[u8]>) -> Option<(Problem, usize)> {
        check(text.as_ref()).err().map(|error| (error.problem, error.position))
    }

    #[test]
    fn the_member_at_a_position_is_named() {
        let deep = format!(r#"{{"status": "a\"b", "list": [1, "x"], "local_metadata": {}"#, r#"{"a":"#.repeat(200));
        let error = check(deep.as_bytes()).unwrap_err();
        assert_eq!(error.problem, Problem::TooDeep);
        assert_eq!(member_at(deep.as_bytes(), error.position).as_deref(), Some("local_metadata"));
        for (text, position, member) in [
            (r#"{"a": "b", "c": 1}"#, 8, None),
            (r#"{"a": [1], "b": {"x": 2}}"#, 20, Some("b")),
            (r#"[{"a": 1}]"#, 8, None),
        ] {
            assert_eq!(member_at(text.as_bytes(), position).as_deref(), member, "{text}");
        }
    }

    #[test]
    fn d22_duplicate_keys_are_found_at_any_depth_and_in_any_spelling() {
        assert_eq!(problem(r#"{"a":1,"a":2}"#), Some((Problem::DuplicateKey, 8)));
        assert_eq!(problem(r#"{"x":[{"a":1,"b":{"c":1,"\u0063":2}}]}"#), Some((Problem::DuplicateKey, 25)));
        assert_eq!(problem(r#"{"a":{"a":{"a":1}},"b":{"a":1}}"#), None);
        let many: Vec<String> = (0..100).map(|i| format!(r#""k{i}":0"#)).collect();
        assert_eq!(problem(format!("{{{}}}", many.join(","))), None);
        let twice = format!(r#"{{{},"k7":1,"k9":1}}"#, many.join(","));
        assert_eq!(problem(&twice), Some((Problem::DuplicateKey, twice.rfind("k7").unwrap())));
    }

    #[test]
    fn d22_bad_text_is_refused() {
        assert_eq!(problem(b"\"a\xff\""), Some((Problem::Utf8, 2)));
        assert_eq!(problem(b"\"\xed\xa0\x80\""), Some((Problem::Utf8, 1)));
        assert_eq!(problem(r#""\ud800""#), Some((Problem::LoneSurrogate, 1)));
        assert_eq!(problem(r#""\udc00x""#), Some((Problem::LoneSurrogate, 1)));
        assert_eq!(problem(r#""\ud800\u0041""#), Some((Problem::LoneSurrogate, 1)));
        assert_eq!(problem(r#"{"\ud83d\ude00":"\u00e9"}"#), None);
    }

    #[test]
    fn d22_trailing_data_and_early_ends_are_refused() {
        assert_eq!(problem("{} x"), Some((Problem::Trailing, 3)));
        assert_eq!(problem("1 2"), Some((Problem::Trailing, 2)));
        for early in ["", " ", "{", "[1,", r#"{"a""#, r#"{"a":"#, r#""a"#, "tru", "-", r#""\u00"#] {
            assert_eq!(problem(early).unwrap().0, Problem::End, "{early:?}");
        }
        for bad in
            ["{a:1}", "[1,]", "{\"a\":1,}", "01x", "+1", "1.e5", "\"\t\"", "nul!", "[1 2]", "{\"a\" 1}", "]", r#""\x""#]
        {
            assert!(problem(bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn d22_nesting_is_limited() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(problem(nested(MAX_DEPTH)), None);
        assert_eq!(problem(nested(MAX_DEPTH + 1)), Some((Problem::TooDeep, MAX_DEPTH)));
        assert_eq!(problem("[".repeat(1_000_000)).unwrap().0, Problem::TooDeep);
    }

    #[test]
    fn d22_the_number_of_open_keys_is_limited() {
        let keys: Vec<String> = (0..=MAX_OPEN_KEYS).map(|i| format!(r#""{i}":0"#)).collect();
        assert_eq!(problem(format!("{{{}}}", keys.join(","))).unwrap().0, Problem::TooManyKeys);
    }

    #[test]
    fn the_number_of_values_is_limited() {
        let zeros = |many: usize| format!("[{}0]", "0,".repeat(many));
        assert_eq!(problem(zeros(MAX_NODES - 2)), None);
        assert_eq!(problem(zeros(MAX_NODES - 1)).unwrap().0, Problem::TooManyNodes);
        let nested = r#"{"":{"":{"":0}}},"#.repeat(1 << 20);
        assert_eq!(problem(format!("[{nested}0]")).unwrap().0, Problem::TooManyNodes);
    }

    #[test]
    fn d22_scanning_eight_bytes_at_a_time_equals_scanning_one_at_a_time() {
        for byte in 0..=u8::MAX {
            for other in [b'a', b'"', 0x1f, 0x20, 0x21, 0x5b, 0x5d, 0x80, 0xff] {
                for at in 0..20 {
                    let mut bytes = [b'x'; 20];
                    bytes[at] = byte;
                    bytes[19 - at] = other;
                    let expected = bytes.iter().position(|byte| is_stop(*byte)).unwrap_or(bytes.len());
                    assert_eq!(plain_length(&bytes), expected, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn d22_a_known_value_is_skipped_and_the_rest_is_checked() {
        let known = Known { key: "m", length: &|rest| rest.starts_with(br#"{"a":1}"#).then_some(7) };
        let check = |text: &'static str| check_but(text.as_bytes(), known).map(|(_, place)| place);
        assert_eq!(check(r#"{"x":[{"m":{"a":1}}], "m" : {"a":1} ,"y":2}"#), Ok(Some(28..35)));
        for other in [r#"{"m":{"a":2}}"#, r#"{"n":{"a":1}}"#, r#"[{"m":{"a":1}}]"#, r#"{"m":[{"a":1}]}"#, "1"] {
            assert_eq!(check(other), Ok(None), "{other}");
        }
        for bad in
            [r#"{"m":{"a":1}"#, r#"{"m":{"a":1}1}"#, r#"{"m":{"a":1},"m":1}"#, r#"{"m":{"a":1},"x":{"y":1,"y":2}}"#]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..12)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn d22_every_json_text_passes(value in any_json()) {
            prop_assert_eq!(problem(value.to_string()), None);
            prop_assert_eq!(problem(serde_json::to_string_pretty(&value).unwrap()), None);
        }

        /// An accepted text can be decoded. Numbers out of range are the one exception.
        #[test]
        fn d22_accepted_texts_can_be_decoded(text in r#"[{}\[\],:"\\ua0-9.eE+\-tnrlsf ]{0,24}"#) {
            let passes = problem(&text).is_none();
            let decoded: Result<Value, _> = serde_json::from_str(&text);
            if passes {
                prop_assert!(decoded.is_ok() || decoded.is_err_and(|error| error.to_string().contains("out of range")));
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in any::<Vec<u8>>()) {
            let _ = check(&bytes);
        }
    }
}
