//! Reading the server's protocol (RESP2) where it stands, without a value for each part of it.

/// How long a line may be: the head of a part, a number, an error.
const LONGEST_LINE: usize = 64 * 1024;

/// The longest string that a server has (`proto-max-bulk-len` may make it shorter).
const LONGEST_STRING: usize = u32::MAX as usize;

/// What is not the protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// How far an answer was looked at that may not be there as a whole. Each byte is looked at once,
/// however it comes in.
#[derive(Debug)]
pub(crate) struct Scan {
    position: usize,
    /// How many parts are still to come.
    missing: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            position: 0,
            missing: 1,
        }
    }
}

impl Scan {
    /// Looks on, in the same bytes and those that came in behind them. The length of the answer
    /// once it is whole.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        while self.missing > 0 {
            let rest = &bytes[self.position..];
            let Some(line) = line(rest)? else {
                return Ok(None);
            };
            let mut length = line.len() + 2;
            let mut parts = 0;
            match (line[0], count(&line[1..])) {
                (b'+' | b'-' | b':', _) | (b'$' | b'*', Some(None)) => {}
                (b'*', Some(Some(count))) => parts = count,
                (b'$', Some(Some(count))) if count <= LONGEST_STRING => {
                    length += count + 2;
                    if rest.len() < length {
                        return Ok(None);
                    }
                }
                _ => return Err(Malformed),
            }
            self.position += length;
            self.missing = (self.missing - 1).checked_add(parts).ok_or(Malformed)?;
        }
        Ok(Some(self.position))
    }
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Bytes(&'a [u8]),
    /// So many parts follow.
    Array(usize),
    Number,
    Error,
    Nil,
}

/// A place in an answer that is there as a whole.
#[derive(Clone)]
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(answer: &'a [u8]) -> Self {
        Self(answer)
    }

    /// The next part.
    pub(crate) fn part(&mut self) -> Option<Part<'a>> {
        let line = line(self.0).ok()??;
        let rest = &self.0[line.len() + 2..];
        self.0 = rest;
        Some(match line[0] {
            b'+' => Part::Bytes(&line[1..]),
            b'-' => Part::Error,
            b':' => Part::Number,
            b'*' => count(&line[1..])?.map_or(Part::Nil, Part::Array),
            b'$' => match count(&line[1..])? {
                None => Part::Nil,
                Some(count) => {
                    self.0 = rest.get(count + 2..)?;
                    Part::Bytes(&rest[..count])
                }
            },
            _ => return None,
        })
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        match self.part()? {
            Part::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The number of the parts that follow.
    pub(crate) fn array(&mut self) -> Option<usize> {
        match self.part()? {
            Part::Array(count) => Some(count),
            _ => None,
        }
    }

    /// Goes behind the next part and all that belongs to it.
    pub(crate) fn skip(&mut self) -> Option<()> {
        let length = Scan::default().advance(self.0).ok()??;
        self.0 = &self.0[length..];
        Some(())
    }
}

/// What stands before the next end of a line, at least one byte; nothing if the end is not there
/// yet.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\r') else {
        return if bytes.len() > LONGEST_LINE {
            Err(Malformed)
        } else {
            Ok(None)
        };
    };
    match bytes.get(end + 1) {
        None => Ok(None),
        Some(b'\n') if end > 0 => Ok(Some(&bytes[..end])),
        Some(_) => Err(Malformed),
    }
}

/// A length; `Some(None)` is that of nothing, `-1`.
fn count(digits: &[u8]) -> Option<Option<usize>> {
    if digits == b"-1" {
        return Some(None);
    }
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let digit = |number: usize, byte: &u8| match byte {
        b'0'..=b'9' => Some(number * 10 + usize::from(byte - b'0')),
        _ => None,
    };
    digits.iter().try_fold(0, digit).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"*2\r\n$3\r\na\r\n\r\n*5\r\n:12\r\n+OK\r\n$-1\r\n*-1\r\n-ERR no\r\n";

    #[test]
    fn an_answer_is_whole_at_its_last_byte_however_it_comes_in() {
        let more = [ANSWER, b":1\r\n"].concat();
        for step in 1..ANSWER.len() {
            let mut scan = Scan::default();
            let mut there = 0;
            while there < ANSWER.len() {
                assert_eq!(
                    scan.advance(&ANSWER[..there]),
                    Ok(None),
                    "{there} by {step}"
                );
                there += step;
            }
            let there = there.min(more.len());
            assert_eq!(scan.advance(&more[..there]), Ok(Some(ANSWER.len())));
        }
    }

    #[test]
    fn parts_are_read_in_their_order() {
        let mut cursor = Cursor::new(ANSWER);
        assert_eq!(cursor.array(), Some(2));
        let behind = cursor.clone();
        assert_eq!(cursor.bytes(), Some(&b"a\r\n"[..]));
        assert_eq!(cursor.array(), Some(5));
        assert_eq!(cursor.part(), Some(Part::Number));
        assert_eq!(cursor.part(), Some(Part::Bytes(b"OK")));
        assert_eq!(cursor.part(), Some(Part::Nil));
        assert_eq!(cursor.part(), Some(Part::Nil));
        assert_eq!(cursor.part(), Some(Part::Error));
        assert_eq!(cursor.part(), None);
        let mut cursor = behind;
        cursor.skip().unwrap();
        cursor.skip().unwrap();
        assert_eq!(cursor.part(), None);
    }

    #[test]
    fn what_is_not_the_protocol_is_told() {
        for bytes in [
            &b"\r\n"[..],
            b"x\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"*\r\n",
            b"+a\rb",
            b"%1\r\n",
            b"HTTP/1.1 400 Bad Request\r\n",
            &[b'+'; LONGEST_LINE + 1],
        ] {
            assert_eq!(Scan::default().advance(bytes), Err(Malformed), "{bytes:?}");
        }
        assert_eq!(Cursor::new(b"$5\r\nab").part(), None);
        assert_eq!(Cursor::new(b"").part(), None);
    }
}
