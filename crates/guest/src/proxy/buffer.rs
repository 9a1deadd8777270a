//! Bodies as a guest reads and writes them, piece by piece.

use super::abi::Status;
use bytes::{Bytes, BytesMut};

/// A body, whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffer {
    pub(super) bytes: Bytes,
    /// The guest wrote into it.
    pub(super) written: bool,
}

/// How a guest's writes are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Nothing at 0 prepends.
    Spec,
    /// Nothing at 0 is everything.
    Layotto,
}

// === impl Buffer ===

impl Buffer {
    pub(super) fn new(bytes: Bytes) -> Buffer {
        Buffer { bytes, written: false }
    }

    /// Puts `value` in the place of `size` bytes at `start`; from the end on it is appended. At most `limit` bytes may
    /// come of it.
    pub(super) fn write(
        &mut self,
        rules: Rules,
        (start, size): (u32, u32),
        value: &[u8],
        limit: u64,
    ) -> Result<(), Status> {
        let length = self.bytes.len();
        let (start, mut size) = ((start as usize).min(length), size as usize);
        if rules == Rules::Layotto && start == 0 && size == 0 {
            size = length;
        }
        let end = start.saturating_add(size).min(length);
        if (length - (end - start) + value.len()) as u64 > limit {
            return Err(Status::BadArgument);
        }
        self.written = true;
        self.bytes = match (start, end) {
            (0, end) if end == length => Bytes::copy_from_slice(value),
            (start, _) if start == length => {
                let mut whole = BytesMut::from(std::mem::take(&mut self.bytes));
                whole.extend_from_slice(value);
                whole.freeze()
            }
            _ => [&self.bytes[..start], value, &self.bytes[end..]].concat().into(),
        };
        Ok(())
    }
}

/// At most `most` bytes from `start` on; nothing where `start` lies behind the end.
pub(super) fn part(bytes: &Bytes, start: u32, most: u32) -> Result<Bytes, Status> {
    let start = start as usize;
    if start > bytes.len() {
        return Err(Status::NotFound);
    }
    let end = start.saturating_add(most as usize).min(bytes.len());
    Ok(bytes.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::{Buffer, Rules, part};
    use crate::proxy::abi::Status;
    use bytes::Bytes;

    #[test]
    fn writes_replace_insert_and_append() {
        let most = u32::MAX;
        let cases = [
            ("abc", Rules::Spec, (0, 0), "x", Ok("xabc")),
            ("abc", Rules::Layotto, (0, 0), "x", Ok("x")),
            ("abc", Rules::Layotto, (0, 3), "x", Ok("x")),
            ("abc", Rules::Spec, (0, most), "x", Ok("x")),
            ("abc", Rules::Spec, (0, 3), "", Ok("")),
            ("abc", Rules::Spec, (0, 1), "xy", Ok("xybc")),
            ("abc", Rules::Spec, (1, 1), "xy", Ok("axyc")),
            ("abc", Rules::Spec, (1, most), "x", Ok("ax")),
            ("abc", Rules::Spec, (3, 0), "x", Ok("abcx")),
            ("abc", Rules::Layotto, (most, 0), "x", Ok("abcx")),
            ("abc", Rules::Spec, (most, most), "x", Ok("abcx")),
            ("", Rules::Spec, (0, 1), "x", Ok("x")),
            ("abc", Rules::Spec, (most, 0), "xyz", Err(Status::BadArgument)),
            ("abc", Rules::Spec, (1, 2), "wxyz", Ok("awxyz")),
            ("abc", Rules::Spec, (1, 1), "wxyz", Err(Status::BadArgument)),
        ];
        for (before, rules, place, value, after) in cases {
            let mut buffer = Buffer::new(Bytes::from(before));
            let written = buffer.write(rules, place, value.as_bytes(), 5);
            assert_eq!(written.map(|()| &buffer.bytes[..]), after.map(str::as_bytes), "{before} {place:?}");
            assert_eq!(buffer.written, after.is_ok());
        }
    }

    #[test]
    fn reads_end_at_the_end() {
        let bytes = Bytes::from("abc");
        for (start, most, found) in [
            (0, u32::MAX, Ok("abc")),
            (1, 1, Ok("b")),
            (2, u32::MAX, Ok("c")),
            (3, 1, Ok("")),
            (0, 0, Ok("")),
            (4, 1, Err(Status::NotFound)),
            (u32::MAX, u32::MAX, Err(Status::NotFound)),
        ] {
            assert_eq!(part(&bytes, start, most), found.map(Bytes::from));
        }
    }
}
