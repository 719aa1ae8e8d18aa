//! `/proc/self/maps` read as a stream: only the addresses, nothing allocated.
//!
//! A line is `start-end access offset device inode  name`, addresses in
//! lower-case hex without prefix, ascending (fs/proc/task_mmu.c). A name may
//! contain anything but a newline, which the kernel writes as `\012`.

/// The text was not what the kernel writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Where in a line the next byte stands.
#[derive(Clone, Copy, Debug)]
enum State {
    Start,
    End,
    Rest,
}

/// A parser that takes the text in pieces of any size.
#[derive(Debug)]
pub(super) struct MapsParser {
    state: State,
    start: u64,
    end: u64,
}

impl MapsParser {
    /// Ready for the first byte of a line.
    pub(super) const fn new() -> Self {
        Self {
            state: State::Start,
            start: 0,
            end: 0,
        }
    }

    /// Feeds `text`, calling `each(start, end)` for every address pair that completes; stops
    /// early when it returns false. Returns whether to read on.
    pub(super) fn feed(
        &mut self,
        text: &[u8],
        each: &mut impl FnMut(u64, u64) -> bool,
    ) -> Result<bool, Malformed> {
        for &byte in text {
            match (self.state, byte) {
                (State::Start, b'-') => self.state = State::End,
                (State::Start, _) => self.start = push_hex(self.start, byte)?,
                (State::End, b' ') => {
                    self.state = State::Rest;
                    if !each(self.start, self.end) {
                        return Ok(false);
                    }
                }
                (State::End, _) => self.end = push_hex(self.end, byte)?,
                (State::Rest, b'\n') => *self = Self::new(),
                (State::Rest, _) => {}
            }
        }
        Ok(true)
    }
}

/// `value` with one more hex digit behind it.
fn push_hex(value: u64, digit: u8) -> Result<u64, Malformed> {
    let digit = match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => return Err(Malformed),
    };
    let shifted = value.checked_mul(16).ok_or(Malformed)?;
    Ok(shifted | u64::from(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"00400000-00507000 r-xp 00000000 00:14 205736    /usr/bin/a-b c\n\
        0178c000-01849000 rw-p 00000000 00:00 0          [heap]\n\
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 \n";

    fn parse(pieces: usize) -> Vec<(u64, u64)> {
        let mut parser = MapsParser::new();
        let mut seen = Vec::new();
        for piece in TEXT.chunks(pieces) {
            let more = parser.feed(piece, &mut |start, end| {
                seen.push((start, end));
                true
            });
            assert_eq!(more, Ok(true));
        }
        seen
    }

    #[test]
    fn pieces_of_any_size_give_the_same() {
        let whole = parse(TEXT.len());
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0], (0x40_0000, 0x50_7000));
        assert_eq!(whole[2].1, 0xffff_ffff_ff60_1000);
        for pieces in 1..TEXT.len() {
            assert_eq!(parse(pieces), whole, "pieces of {pieces}");
        }
    }

    #[test]
    fn stops_when_told() {
        let mut count = 0;
        let more = MapsParser::new().feed(TEXT, &mut |_, _| {
            count += 1;
            false
        });
        assert_eq!((more, count), (Ok(false), 1));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [&b"zz-1 "[..], b"1-g ", b"11112222333344445-2 ", b"\n"] {
            let result = MapsParser::new().feed(text, &mut |_, _| true);
            assert_eq!(result, Err(Malformed), "{text:?}");
        }
    }
}
