//! Quantities as Kubernetes writes them (`500m`, `1.5Gi`, `2e3`), in the two units that resources are counted in.

use crate::pod::Quantity;

/// Thousand-millionths: the finest that Kubernetes has.
const UNIT: u128 = 1_000_000_000;

impl Quantity {
    /// In thousandths, rounded up, as cpu is counted; `None` where it is no quantity, or below 0.
    pub fn milli(&self) -> Option<u64> {
        self.in_units_of(1_000_000)
    }

    /// In whole units, rounded up, as everything else is counted; `None` where it is no quantity, or below 0.
    pub fn whole(&self) -> Option<u64> {
        self.in_units_of(UNIT)
    }

    fn in_units_of(&self, unit: u128) -> Option<u64> {
        let nano = match self {
            Self::Number(number) => u128::from(*number).checked_mul(UNIT)?,
            Self::Text(text) => nano(text)?,
        };
        u64::try_from(nano.div_ceil(unit)).ok()
    }
}

fn nano(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
    if integer.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Digits beyond the twentieth change nothing that we add up.
    let fraction = &fraction[..fraction.len().min(20)];
    let digit = |sum: u128, c: u8| sum.checked_mul(10)?.checked_add(u128::from(c - b'0'));
    let digits = integer.bytes().chain(fraction.bytes()).try_fold(0, digit)?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // Units that are below one are divided by, the others multiplied with.
    let (times, divided): (u128, u128) = match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10_u128.checked_pow(exponent.unsigned_abs())?;
            if exponent < 0 { (1, power) } else { (power, 1) }
        }
    };
    let numerator = digits.checked_mul(times)?.checked_mul(UNIT)?;
    Some(numerator.div_ceil(scale.checked_mul(divided)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, want) in [
            ("1", Some(1000)),
            ("500m", Some(500)),
            ("0.5", Some(500)),
            (".5", Some(500)),
            ("1.", Some(1000)),
            ("1500u", Some(2)),
            ("1n", Some(1)),
            ("1e3", Some(1_000_000)),
            ("1E-1", Some(100)),
            ("1.5Ki", Some(1_536_000)),
            ("2Gi", Some(2 << 30).map(|n: u64| n * 1000)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("-1", None),
            ("x", None),
            ("1x", None),
            ("9e99", None),
            ("99999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(Quantity::Text(text.into()).milli(), want, "{text:?}");
        }
        assert_eq!(Quantity::Number(2).milli(), Some(2000));
        assert_eq!(Quantity::Text("0.3".into()).whole(), Some(1));
    }
}
