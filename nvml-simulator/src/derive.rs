//! UUIDs and bus addresses that are the same on every start, and differ where they must.
//!
//! Nothing here is secret, so a plain hash (128-bit FNV-1a with a finish that spreads late bytes over all
//! digits) is enough, and needs no dependency.

const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// A digest of some texts; their borders count.
pub(crate) fn digest(parts: &[&str]) -> u128 {
    let mut hash = FNV_OFFSET;
    for part in parts {
        // 0xff is in no UTF-8 text, so it marks the end of a part.
        for &byte in part.as_bytes().iter().chain(&[0xff]) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME);
        }
    }
    hash ^= hash >> 67;
    hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    hash ^ (hash >> 61)
}

/// A UUID made from some texts: version 5 in form, though not made with SHA-1.
pub(crate) fn uuid(prefix: &str, parts: &[&str]) -> String {
    let bits = digest(parts) & !(0xf << 76) & !(0x3 << 62) | (0x5 << 76) | (0x2 << 62);
    let digits = format!("{bits:032x}");
    let group = |from: usize, to: usize| digits.get(from..to).unwrap_or_default();
    format!("{prefix}{}-{}-{}-{}-{}", group(0, 8), group(8, 12), group(12, 16), group(16, 20), group(20, 32))
}

/// The PCI bus number of the GPU of that index: distinct for all 64 that a description may have.
pub(crate) fn pci_bus(index: u32) -> u32 {
    4 + 3 * index
}

/// The PCI bus number of the NVSwitch of that number: above those of all GPUs.
pub(crate) fn pci_bus_of_switch(number: u32) -> u32 {
    0xC8 + number
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn uuids_are_stable_well_formed_and_distinct() {
        assert_eq!(uuid("GPU-", &["a"]), uuid("GPU-", &["a"]));
        let all: BTreeSet<String> =
            (0..20_000).map(|i: u32| uuid("GPU-", &["node", &i.to_string()])).collect();
        assert_eq!(all.len(), 20_000);
        for text in all {
            assert_eq!(text.len(), 40, "{text}");
            assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [3, 8, 4, 4, 4, 12], "{text}");
        }
        assert_ne!(uuid("", &["ab", "c"]), uuid("", &["a", "bc"]), "borders count");
    }
}
