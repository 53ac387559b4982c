//! Kubernetes quantities as numbers: `1500m`, `2`, `1.5Gi`, `1e3`.
//!
//! Both readings round up, as `Quantity.MilliValue` and `Quantity.Value` do. What is no quantity, or is
//! negative, is `None`: the real API server would not have let it in.

use serde_json::Value;

/// More digits than this are more than any node can have.
const DIGITS_MAX: usize = 18;
const NANO: i128 = 1_000_000_000;

/// The quantity in thousandths, e.g. of a core.
pub(super) fn milli(value: &Value) -> Option<i64> {
    Some(up(nano(value)?, NANO / 1000))
}

/// The quantity in units, e.g. bytes or devices.
pub(super) fn whole(value: &Value) -> Option<i64> {
    Some(up(nano(value)?, NANO))
}

fn up(nano: i128, unit: i128) -> i64 {
    i64::try_from((nano + unit - 1) / unit).unwrap_or(i64::MAX)
}

fn nano(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => parse(&number.to_string()),
        Value::String(text) => parse(text),
        _ => None,
    }
}

fn parse(text: &str) -> Option<i128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (before, behind) = number.split_once('.').unwrap_or((number, ""));
    if before.len() + behind.len() == 0 || before.len() + behind.len() > DIGITS_MAX || behind.contains('.') {
        return None;
    }
    let digits: i128 = format!("{before}{behind}").parse().ok()?;
    let decimals = 10_i128.pow(u32::try_from(behind.len()).ok()?);
    // Rounded up at the nano, the smallest that Kubernetes keeps.
    Some((digits.checked_mul(factor(suffix)?)? + decimals - 1) / decimals)
}

/// What a suffix stands for, in billionths.
fn factor(suffix: &str) -> Option<i128> {
    if let Some(binary) = suffix.strip_suffix('i') {
        let power = "KMGTPE".find(binary).filter(|_| binary.len() == 1)?;
        return Some(NANO << (10 * (power + 1)));
    }
    Some(match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * NANO,
        "T" => NANO * NANO * 1_000,
        "P" => NANO * NANO * 1_000_000,
        "E" => NANO * NANO * NANO,
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=12 => NANO * 10_i128.pow(exponent.unsigned_abs()),
                -9..0 => NANO / 10_i128.pow(exponent.unsigned_abs()),
                _ => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, want_milli, want_whole) in [
            (json!("500m"), 500, 1),
            (json!("2"), 2_000, 2),
            (json!(3), 3_000, 3),
            (json!("1.5"), 1_500, 2),
            (json!("0.1"), 100, 1),
            (json!("1Ki"), 1_024_000, 1_024),
            (json!("1.5Gi"), 1_610_612_736_000, 1_610_612_736),
            (json!("100k"), 100_000_000, 100_000),
            (json!("1e3"), 1_000_000, 1_000),
            (json!("100n"), 1, 1),
            (json!("0"), 0, 0),
        ] {
            assert_eq!((milli(&text), whole(&text)), (Some(want_milli), Some(want_whole)), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in ["", "m", "-1", "1.2.3", "1Xi", "1ki", "one", "1e99", "1234567890123456789012"] {
            assert_eq!(whole(&json!(text)), None, "{text}");
        }
        assert_eq!(whole(&json!(null)), None);
    }
}
