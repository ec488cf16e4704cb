//! PAX extended headers: records of `LENGTH KEY=VALUE\n`.

use super::reader::TarError;

/// Keys and values, in order.
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// All records.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, TarError> {
    let mut records = Records::new();
    while !data.is_empty() {
        // Some writers pad with zeros.
        if data.iter().all(|&byte| byte == 0) {
            break;
        }
        let (record, rest) = split_record(data).ok_or(TarError::Extended)?;
        data = rest;
        let equals = record
            .iter()
            .position(|&byte| byte == b'=')
            .ok_or(TarError::Extended)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
    }
    Ok(records)
}

/// The first record without its length and line end, and what is behind it.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    if length <= space + 1 || length > data.len() || data[length - 1] != b'\n' {
        return None;
    }
    Some((&data[space + 1..length - 1], &data[length..]))
}

/// A number of digits alone.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A time in seconds, whose fraction is cut off. May be negative.
pub(super) fn seconds(value: &[u8]) -> Option<i64> {
    let whole = value.split(|&byte| byte == b'.').next()?;
    std::str::from_utf8(whole).ok()?.parse().ok()
}
