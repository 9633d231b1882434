//! Operating system and processor an image is for.

use std::fmt;

use serde::Deserialize;

/// A platform in Go's words, as image indexes and configurations name it: `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub struct Platform {
    /// Go's `GOOS`; always `linux` for images that can run here.
    pub os: String,
    /// Go's `GOARCH`: `amd64`, `arm64`, `arm`, `riscv64`, ...
    pub architecture: String,
    /// Processor variant (`v7`, `v8`), where the image names one.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// `linux/<architecture>` without a variant.
    pub fn linux(architecture: &str) -> Self {
        Self { os: "linux".into(), architecture: architecture.into(), variant: None }
    }

    /// What this program was compiled for.
    pub fn host() -> Self {
        Self::linux(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        })
    }

    /// Whether an image for `other` runs on `self`: same system and architecture; a variant counts only if both name one.
    pub fn runs(&self, other: &Self) -> bool {
        let variant = match (&self.variant, &other.variant) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        self.os == other.os && self.architecture == other.architecture && variant
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_count_when_both_sides_name_one() {
        let (plain, v7) = (
            Platform::linux("arm"),
            Platform { variant: Some("v7".into()), ..Platform::linux("arm") },
        );
        let v6 = Platform { variant: Some("v6".into()), ..plain.clone() };
        assert!(plain.runs(&v7) && v7.runs(&plain) && v7.runs(&v7));
        assert!(!v7.runs(&v6) && !plain.runs(&Platform::linux("arm64")));
        assert_eq!(v7.to_string(), "linux/arm/v7");
    }
}
