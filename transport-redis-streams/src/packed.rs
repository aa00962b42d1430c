//! Commands as they go to the server, written where they are sent from.

use crate::client::Cmd;

/// What takes the arguments of a command.
pub(crate) trait Arguments {
    fn push(&mut self, argument: &[u8]);

    fn push_number(&mut self, number: u64) {
        let mut digits = [0; MOST_DIGITS];
        self.push(decimal(number, &mut digits));
    }
}

impl Arguments for Cmd {
    fn push(&mut self, argument: &[u8]) {
        self.arg(argument);
    }
}

const MOST_DIGITS: usize = 20;

/// A command at the end of a buffer. Without its [`end`](Self::end) it is none.
pub(crate) struct Packed<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    count: u64,
}

impl<'a> Packed<'a> {
    pub(crate) fn begin(buffer: &'a mut Vec<u8>) -> Self {
        let start = buffer.len();
        // A digit is enough for most.
        buffer.extend_from_slice(b"*0\r\n");
        Self {
            buffer,
            start,
            count: 0,
        }
    }

    pub(crate) fn end(self) {
        let mut digits = [0; MOST_DIGITS];
        let place = self.start + 1;
        match decimal(self.count, &mut digits) {
            [digit] => self.buffer[place] = *digit,
            digits => drop(self.buffer.splice(place..=place, digits.iter().copied())),
        }
    }
}

impl Arguments for Packed<'_> {
    fn push(&mut self, argument: &[u8]) {
        let mut digits = [0; MOST_DIGITS];
        self.count += 1;
        self.buffer.push(b'$');
        let length = decimal(argument.len() as u64, &mut digits);
        self.buffer.extend_from_slice(length);
        self.buffer.extend_from_slice(b"\r\n");
        self.buffer.extend_from_slice(argument);
        self.buffer.extend_from_slice(b"\r\n");
    }
}

fn decimal(mut number: u64, digits: &mut [u8; MOST_DIGITS]) -> &[u8] {
    let mut first = MOST_DIGITS;
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[first..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_packed_as_the_client_packs_it() {
        for count in [1, 2, 9, 10, 11, 123] {
            let mut command = Cmd::new();
            let mut buffer = b"+before\r\n".to_vec();
            let mut packed = Packed::begin(&mut buffer);
            for number in 0..count {
                let argument = vec![b'x'; number * 7];
                command.push(&argument);
                packed.push(&argument);
            }
            command.push_number(u64::MAX);
            packed.push_number(u64::MAX);
            packed.end();
            let expected = [b"+before\r\n", &command.get_packed_command()[..]].concat();
            assert_eq!(buffer, expected, "{count} arguments");
        }
    }

    #[test]
    fn numbers_are_written_with_the_digits_that_they_have() {
        for number in [0, 7, 10, 99, 100, 65_535, u64::MAX] {
            let mut digits = [0; MOST_DIGITS];
            assert_eq!(decimal(number, &mut digits), number.to_string().as_bytes());
        }
    }
}
