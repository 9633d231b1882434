//! Fixed-width base 36 of big-endian numbers, as in join tokens: digits `0-9a-z`, padded with zeros
//! on the left.

/// Why a text is not such a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base36Error {
    /// A character that is no digit.
    BadCharacter(char),
    /// More than the bytes can hold.
    TooLarge,
}

/// Writes `bytes` with `width` digits, which must be enough: 25 for 16 bytes, 50 for 32.
pub(crate) fn encode(bytes: &[u8], width: usize) -> String {
    let mut rest = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        *digit = char_of(divide(&mut rest));
    }
    debug_assert!(
        rest.iter().all(|&byte| byte == 0),
        "{width} digits are too few for {} bytes",
        bytes.len()
    );
    digits.into_iter().map(char::from).collect()
}

/// Reads a number of `N` bytes.
pub(crate) fn decode<const N: usize>(text: &str) -> Result<[u8; N], Base36Error> {
    let mut bytes = [0; N];
    for c in text.chars() {
        let digit = match c {
            '0'..='9' | 'a'..='z' => c.to_digit(36),
            _ => None,
        };
        let mut carry = digit.ok_or(Base36Error::BadCharacter(c))?;
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return Err(Base36Error::TooLarge);
        }
    }
    Ok(bytes)
}

/// Divides a big-endian number by 36 in place and returns the remainder.
fn divide(number: &mut [u8]) -> u8 {
    let mut remainder = 0_u16;
    for byte in number {
        let value = (remainder << 8) | u16::from(*byte);
        *byte = (value / 36) as u8;
        remainder = value % 36;
    }
    remainder as u8
}

fn char_of(digit: u8) -> u8 {
    b"0123456789abcdefghijklmnopqrstuvwxyz"[usize::from(digit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_numbers() {
        assert_eq!(encode(&[0; 16], 25), "0".repeat(25));
        assert_eq!(encode(&[0, 35], 3), "00z");
        assert_eq!(encode(&[0, 36], 3), "010");
        // 2^128 - 1
        assert_eq!(encode(&[0xff; 16], 25), "f5lxx1zz5pnorynqglhzmsp33");
    }

    #[test]
    fn rejects_what_does_not_fit() {
        assert_eq!(decode::<16>("f5lxx1zz5pnorynqglhzmsp33"), Ok([0xff; 16]));
        assert_eq!(decode::<16>("f5lxx1zz5pnorynqglhzmsp34"), Err(Base36Error::TooLarge));
        assert_eq!(decode::<16>("0A"), Err(Base36Error::BadCharacter('A')));
        assert_eq!(decode::<16>("0é"), Err(Base36Error::BadCharacter('é')));
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; 32]) {
            prop_assert_eq!(decode::<32>(&encode(&bytes, 50)), Ok(bytes));
        }
    }
}
