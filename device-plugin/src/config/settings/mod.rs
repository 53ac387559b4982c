//! Every setting there is, in one table: its flag, its environment names, its key in NVIDIA's file, its default.
//!
//! The command line, `--help`, the look-ups and the refusals are all made from this table, so a setting cannot be
//! known in one place and forgotten in another. Names and defaults are those of NVIDIA's device plugin v0.20,
//! where it has the setting; what it has and we have not is in the table too, with the values that ask for
//! nothing: anything else is refused, never ignored.

mod table;
#[cfg(test)]
mod tests;

pub use table::SETTINGS;

/// What becomes of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is used.
    Used,
    /// It is NVIDIA's and not supported yet: only these values, which ask for nothing, are accepted.
    NotYet {
        /// The values that ask for nothing.
        neutral: &'static [&'static str],
        /// What it would be, and what to do instead.
        cure: &'static str,
    },
}

/// What a setting's values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// `true` or `false`; the flag alone, without a value, means `true`.
    Switch,
    /// Texts with commas between; the flag may be given several times.
    List,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in messages, and its path in NVIDIA's file where it has one ([`Setting::in_file`]).
    pub key: &'static str,
    /// Whether NVIDIA's file may hold it.
    pub in_file: bool,
    /// The flag, without dashes; empty where there is none.
    pub flag: &'static str,
    /// NVIDIA's other name of the flag.
    pub alias: Option<&'static str>,
    /// Environment names; the first that is set and not empty counts.
    pub env: &'static [&'static str],
    /// What its values look like.
    pub kind: Kind,
    /// The default, as `--help` shows it.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// What becomes of it.
    pub support: Support,
}

const BASE: Setting = Setting {
    key: "",
    in_file: true,
    flag: "",
    alias: None,
    env: &[],
    kind: Kind::Text,
    default: "",
    help: "",
    support: Support::Used,
};

/// A setting of our own, or of NVIDIA's that no file may hold.
pub(super) const fn outside(
    flag: &'static str,
    env: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key: flag, in_file: false, flag, env, default, help, ..BASE }
}

/// A setting of NVIDIA's that is used.
pub(super) const fn nvidia(
    key: &'static str,
    flag: &'static str,
    env: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, flag, env, default, help, ..BASE }
}

/// A setting of NVIDIA's that is not supported yet.
const fn not_yet(
    key: &'static str,
    flag: &'static str,
    env: &'static [&'static str],
    neutral: &'static [&'static str],
    cure: &'static str,
) -> Setting {
    Setting { key, flag, env, support: Support::NotYet { neutral, cure }, ..BASE }
}

impl Setting {
    /// The setting of that key.
    pub fn by_key(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// The flag as clap knows it; `None` where the setting has no flag.
    pub(super) fn arg(&self) -> Option<clap::Arg> {
        if self.flag.is_empty() {
            return None;
        }
        let mut help = self.help.to_owned();
        help.push_str(&format!(" [env: {}]", self.env.join(", ")));
        if !self.default.is_empty() {
            help.push_str(&format!(" [default: {}]", self.default));
        }
        let value = if self.kind == Kind::Switch { "BOOL" } else { "VALUE" };
        let arg = clap::Arg::new(self.flag)
            .long(self.flag)
            .visible_aliases(self.alias)
            .value_name(value)
            .help(help)
            .hide(self.support != Support::Used);
        Some(match self.kind {
            Kind::Text => arg,
            Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            Kind::List => arg.action(clap::ArgAction::Append),
        })
    }
}
