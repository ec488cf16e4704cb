//! Whole numbers in JSON, which knows no difference between 15 and 15.0.

use std::{fmt, marker::PhantomData};

use serde::{Deserialize, Deserializer, de};

/// A whole number that fits `T`.
struct Whole<T>(T);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<T: TryFrom<u64>> de::Visitor<'_> for Visitor<T> {
            type Value = Whole<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let bits = size_of::<T>() * 8;
                write!(f, "a whole number from 0 to {}", u64::MAX >> (64 - bits))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                let unexpected = de::Unexpected::Unsigned(number);
                let fits = T::try_from(number);
                fits.map(Whole)
                    .map_err(|_| E::invalid_value(unexpected, &self))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
                /// Up to here every whole number has a form of its own (2^53).
                const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
                if (0.0..=EXACT_MAX).contains(&number) && number.fract() == 0.0 {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "whole and within bounds"
                    )]
                    return self.visit_u64(number as u64);
                }
                Err(E::invalid_value(de::Unexpected::Float(number), &self))
            }
        }

        deserializer.deserialize_any(Visitor(PhantomData))
    }
}

/// Reads a whole number.
pub(super) fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Whole::deserialize(deserializer).map(|Whole(number)| number)
}

/// Reads a whole number that may be null.
pub(super) fn optional<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let read = Option::<Whole<T>>::deserialize(deserializer)?;
    Ok(read.map(|Whole(number)| number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<u16, String> {
        let mut reader = serde_json::Deserializer::from_str(text);
        number(&mut reader).map_err(|error| error.to_string())
    }

    #[test]
    fn r42_a_number_is_whole_and_fits_or_is_refused() {
        assert_eq!(read("15"), Ok(15));
        assert_eq!(read("15.0"), Ok(15));
        assert_eq!(read("65535"), Ok(65535));
        for bad in ["65536", "-1", "1.5", "1e300", "\"1\"", "null", "[]"] {
            let words = read(bad).unwrap_err();
            assert!(words.contains("from 0 to 65535"), "{words}");
        }
    }
}
