//! What counts as ill: NVIDIA's `DP_DISABLE_HEALTHCHECKS` and `DP_ENABLE_HEALTHCHECKS`, and classes set by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::xids::{self, Class};

/// How long a GPU must have been quiet after a contained error, if nothing else is configured.
pub const QUIET_DEFAULT: Duration = Duration::from_secs(60);

/// What counts as ill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether XIDs count at all, where nothing is said of one.
    all_xids: bool,
    /// Whether ECC and row remapping count.
    memory: bool,
    /// XIDs that never count.
    disabled: BTreeSet<u64>,
    /// XIDs that always count, whatever their class.
    enabled: BTreeSet<u64>,
    /// Classes set by hand.
    classes: BTreeMap<u64, Class>,
    /// How long a GPU must have been quiet after a contained error.
    pub quiet: Duration,
}

/// Why a list cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Neither a word that means something nor a number.
    #[error("{0:?} is neither all, xids nor the number of an XID")]
    Check(String),
    /// No `xid=class`.
    #[error(
        "{0:?} is no class of an XID: write 74=contained; there are information, application, contained, reset and fatal"
    )]
    Class(String),
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            all_xids: true,
            memory: true,
            disabled: BTreeSet::new(),
            enabled: BTreeSet::new(),
            classes: BTreeMap::new(),
            quiet: QUIET_DEFAULT,
        }
    }
}

impl Rules {
    /// Rules from NVIDIA's two lists, which name `all`, `xids` or numbers, and from `xid=class` pairs; all with
    /// commas between. What is enabled wins over what is disabled. `xids` leaves ECC and row remapping alone;
    /// a GPU that is lost or hangs is unhealthy whatever they say, since no pod could use it.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn new(disable: &str, enable: &str, classes: &str, quiet: Duration) -> Result<Self, RulesError> {
        let mut rules = Self { quiet, ..Self::default() };
        for word in words(disable) {
            match word.to_ascii_lowercase().as_str() {
                "all" => (rules.all_xids, rules.memory) = (false, false),
                "xids" => rules.all_xids = false,
                number => _ = rules.disabled.insert(xid(number)?),
            }
        }
        for word in words(enable) {
            match word.to_ascii_lowercase().as_str() {
                "all" => (rules.all_xids, rules.memory) = (true, true),
                "xids" => rules.all_xids = true,
                number => _ = rules.enabled.insert(xid(number)?),
            }
        }
        for pair in words(classes) {
            let wrong = || RulesError::Class(pair.to_owned());
            let (number, word) = pair.split_once('=').ok_or_else(wrong)?;
            let class = Class::WORDS.iter().find(|(known, _)| *known == word.trim()).ok_or_else(wrong)?.1;
            rules.classes.insert(number.trim().parse().map_err(|_| wrong())?, class);
        }
        Ok(rules)
    }

    /// The class of an XID.
    pub fn class(&self, xid: u64) -> Class {
        self.classes.get(&xid).copied().unwrap_or_else(|| xids::look_up(xid).0)
    }

    /// Whether an XID makes a GPU unhealthy, and until when.
    pub fn counts(&self, xid: u64) -> bool {
        if self.enabled.contains(&xid) {
            return true;
        }
        let by_class = !matches!(self.class(xid), Class::Information | Class::Application);
        self.all_xids && !self.disabled.contains(&xid) && by_class
    }

    /// Whether ECC and row remapping count.
    pub fn memory_counts(&self) -> bool {
        self.memory
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn xid(text: &str) -> Result<u64, RulesError> {
    text.parse().map_err(|_| RulesError::Check(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(disable: &str, enable: &str, counting: &[u64], not: &[u64], memory: bool) {
        let rules = Rules::new(disable, enable, "", QUIET_DEFAULT).unwrap();
        for xid in counting {
            assert!(rules.counts(*xid), "{xid} counts with {disable:?} {enable:?}");
        }
        for xid in not {
            assert!(!rules.counts(*xid), "{xid} does not count with {disable:?} {enable:?}");
        }
        assert_eq!(rules.memory_counts(), memory);
    }

    /// NVIDIA's plugin ignores 13, 31, 43, 45 and 68 too; it ignores 109 against its own catalogue, and takes every
    /// other XID for a broken GPU, even those that only inform.
    #[test]
    fn nvidias_lists_mean_what_they_mean_there() {
        check("", "", &[79, 94, 95, 109, 48, 999], &[13, 31, 43, 45, 68, 63], true);
        check("all", "", &[], &[79, 94], false);
        check("xids", "", &[], &[79, 94], true);
        check("XIDS", "79, 13", &[79, 13], &[94], true);
        check("all", "all", &[79], &[13], true);
        check("94,95", "95", &[95], &[94], true);
    }

    #[test]
    fn classes_can_be_set_by_hand() {
        let rules = Rules::new("", "", "94=application, 31=reset", QUIET_DEFAULT).unwrap();
        assert_eq!((rules.class(94), rules.class(31)), (Class::Application, Class::Reset));
        assert!(!rules.counts(94) && rules.counts(31));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error =
            |disable, classes| Rules::new(disable, "", classes, QUIET_DEFAULT).unwrap_err().to_string();
        assert!(error("xid", "").starts_with("\"xid\" is neither all, xids nor"));
        assert!(error("", "94=bad").contains("\"94=bad\" is no class of an XID: write 74=contained"));
        assert!(error("", "94").contains("\"94\""));
    }
}
