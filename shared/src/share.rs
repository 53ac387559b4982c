//! How much of a shared GPU one share is to have.
//!
//! The kubelet counts shares, and all of them alike. A pod may say how large its shares are, with one of two
//! annotations; then they are planned with that size, and as many pods share a GPU as its memory holds. A share of a
//! pod that says nothing has an equal part: the GPU's memory divided by its number of shares.
//!
//! Annotations come from tenants: a size that cannot be read is an error of the pod's request, never a guess.

use crate::contract::{SHARE_MEMORY_ANNOTATION, SHARE_MILLI_ANNOTATION};
use crate::units::MemoryMib;

/// All of a GPU, in thousandths.
const MILLI_MAX: u32 = 1000;

/// The size of each share that a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShareSize {
    /// So much of a GPU's memory.
    Memory(MemoryMib),
    /// So many thousandths of a GPU, whichever it is.
    Milli(u32),
}

/// Why a pod's share has no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareSizeError {
    /// Not an amount of memory.
    #[error(
        "annotation {SHARE_MEMORY_ANNOTATION} is {0:?}: say how much memory a share needs, such as 3Gi or 1500Mi"
    )]
    Memory(String),
    /// Less than the unit.
    #[error("annotation {SHARE_MEMORY_ANNOTATION} is {0:?}, less than 1Mi: is the unit missing, as in 3Gi?")]
    TooSmall(String),
    /// Not thousandths of a GPU.
    #[error(
        "annotation {SHARE_MILLI_ANNOTATION} is {0:?}: say how many thousandths of a GPU a share needs, 1 to {MILLI_MAX}"
    )]
    Milli(String),
    /// Two sizes.
    #[error(
        "annotations {SHARE_MEMORY_ANNOTATION} and {SHARE_MILLI_ANNOTATION} both say how large a share is: leave one out"
    )]
    Both,
}

impl ShareSize {
    /// Reads the size from a pod's annotations; `None` where it does not say.
    ///
    /// # Errors
    /// [`ShareSizeError`], with the cure.
    pub fn read<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, ShareSizeError> {
        match (annotation(SHARE_MEMORY_ANNOTATION), annotation(SHARE_MILLI_ANNOTATION)) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(ShareSizeError::Both),
            (Some(text), None) => {
                let bytes = bytes(text).ok_or_else(|| ShareSizeError::Memory(excerpt(text)))?;
                match bytes.div_ceil(1 << 20) {
                    _ if bytes < 1 << 20 => Err(ShareSizeError::TooSmall(excerpt(text))),
                    mib => Ok(Some(Self::Memory(MemoryMib(mib)))),
                }
            }
            (None, Some(text)) => match text.trim().parse() {
                Ok(milli @ 1..=MILLI_MAX) => Ok(Some(Self::Milli(milli))),
                _ => Err(ShareSizeError::Milli(excerpt(text))),
            },
        }
    }

    /// How much that is of a GPU with so much memory, rounded up.
    pub fn of(self, gpu: MemoryMib) -> MemoryMib {
        match self {
            Self::Memory(memory) => memory,
            Self::Milli(milli) => {
                MemoryMib(gpu.0.saturating_mul(u64::from(milli)).div_ceil(u64::from(MILLI_MAX)))
            }
        }
    }
}

/// A Kubernetes quantity of bytes; also with a fraction, as people write `1.5Gi`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u128 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let whole: u128 = whole.parse::<u64>().ok()?.into();
    u64::try_from((whole * scale + fraction).checked_mul(factor)? / scale).ok()
}

fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(memory: Option<&str>, milli: Option<&str>, want: Result<Option<ShareSize>, &str>) {
        let annotation = |key: &str| if key == SHARE_MEMORY_ANNOTATION { memory } else { milli };
        let got = ShareSize::read(annotation).map_err(|error| error.to_string());
        match want {
            Ok(size) => assert_eq!(got, Ok(size)),
            Err(part) => assert!(got.as_ref().is_err_and(|text| text.contains(part)), "{got:?}"),
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let memory = |mib| Ok(Some(ShareSize::Memory(MemoryMib(mib))));
        check(None, None, Ok(None));
        check(Some("3Gi"), None, memory(3072));
        check(Some(" 1.5Gi "), None, memory(1536));
        check(Some("2G"), None, memory(1908));
        check(Some("1048576"), None, memory(1));
        check(Some("1048577"), None, memory(2));
        check(None, Some("250"), Ok(Some(ShareSize::Milli(250))));
    }

    #[test]
    fn what_is_no_size_is_told_with_the_cure() {
        for text in
            ["", "Gi", ".5Gi", "3 Gi", "3GB", "-1Gi", "1e9", "99999999999999999999Ti", "1.0000000001Gi"]
        {
            check(Some(text), None, Err("such as 3Gi"));
        }
        check(Some("3"), None, Err("is the unit missing"));
        check(Some("20000000Ti"), None, Err("such as 3Gi"));
        for text in ["", "0", "1001", "0.25", "25%"] {
            check(None, Some(text), Err("1 to 1000"));
        }
        check(Some("3Gi"), Some("250"), Err("leave one out"));
    }

    #[test]
    fn thousandths_depend_on_the_gpu() {
        assert_eq!(ShareSize::Milli(250).of(MemoryMib(40_960)), MemoryMib(10_240));
        assert_eq!(ShareSize::Milli(1).of(MemoryMib(100)), MemoryMib(1));
        assert_eq!(ShareSize::Memory(MemoryMib(3072)).of(MemoryMib(100)), MemoryMib(3072));
    }
}
