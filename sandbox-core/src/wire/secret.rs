//! A secret that clients show.

/// What clients must show.
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// This secret; none where the text is empty.
    #[must_use]
    pub fn new(secret: String) -> Option<Self> {
        (!secret.is_empty()).then_some(Self(secret))
    }

    /// Compares in a time that tells at most how long the secret is.
    #[must_use]
    pub fn fits(&self, shown: &str) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), shown.as_bytes());
        let difference = ours
            .iter()
            .zip(theirs)
            .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        ours.len() == theirs.len() && difference == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_fits_only_itself() {
        let secret = Secret::new("secret".to_owned()).unwrap();
        assert!(secret.fits("secret"));
        for wrong in ["", "secre", "secret ", "Secret", "secrets"] {
            assert!(!secret.fits(wrong), "{wrong:?}");
        }
        assert!(Secret::new(String::new()).is_none());
    }
}
