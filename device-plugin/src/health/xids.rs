//! What each XID means for the GPU that raised it.
//!
//! Sources: NVIDIA's XID catalogue for Ampere and newer GPUs, column "Resolution Bucket (Immediate Action)",
//! <https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html>, as of October 2025, and for what has no row
//! there the names in `nverror.h` of NVIDIA's open kernel modules 595.45. Every row was compared with both.
//!
//! The bucket is the class, and `RESTART_APP` is [`Application`] where the next step is to look at the program, else
//! [`Contained`]. Where the catalogue gives no such word:
//! - "Follow a workflow" is the workflow's usual end: 13, 31 and 45 are the program's, 48 and the NVLink ones want a
//!   reset, except for 147 and 148, all of whose subcodes are `IGNORE`. 159 (`CHECK_UVM`) is taken for the worst.
//! - `CHECK_MECHANICALS` (54) and `UPDATE_SWFW` (78) are somebody's work, and the GPU goes on: [`Information`].
//! - 171 and 172 only say more of a 48; 162 to 166, 168 and 170 only describe a mode. No bucket at all (142, 167,
//!   169, and from 173 on) is as good as unknown.
//! - 68 is the program's, against the catalogue, since NVIDIA's device plugin ignores it too: whoever decodes damaged
//!   videos raises it.
//!
//! NVIDIA's device plugin knows no classes: there an XID is ignored or takes the GPU away for good.

use Class::{Application, Contained, Fatal, Information, Reset};

/// What has to happen after an XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Nothing (the catalogue's `IGNORE`).
    Information,
    /// The program did wrong and must be started again; the GPU is fine (`RESTART_APP`, then look at the program).
    Application,
    /// The hardware did wrong, and one program bears it: that must be started again (`RESTART_APP`, then contact
    /// support). The GPU gets no new work until it has been quiet for a while.
    Contained,
    /// The GPU must be reset (`RESET_GPU`).
    Reset,
    /// The node must be rebooted (`RESTART_BM`, `RESTART_VM`).
    Fatal,
}

impl Class {
    /// All of them, as they are configured.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("information", Information),
        ("application", Application),
        ("contained", Contained),
        ("reset", Reset),
        ("fatal", Fatal),
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, class)| *class == self).map_or("", |(word, _)| word)
    }
}

/// The class of an XID that is not in the table, or for which no action is published: nobody knows what it means, so
/// the GPU is given a rest.
pub const UNKNOWN: Class = Contained;

/// First and last XID, class, and what happened; in order.
pub const TABLE: &[(u64, u64, Class, &str)] = &[
    (8, 8, Contained, "a channel stopped processing"),
    (11, 11, Application, "a corrupt command stream"),
    (13, 13, Application, "a graphics engine exception"),
    (14, 14, Information, "a test of the error path"),
    (25, 25, Application, "an illegal notification"),
    (31, 31, Application, "an invalid memory access"),
    (32, 32, Application, "a corrupt command buffer"),
    (37, 38, Information, "a firmware method or watchdog error"),
    (39, 41, Contained, "a copy engine error"),
    (43, 43, Information, "a program was stopped after an error of its own"),
    (44, 44, Information, "a fault during a context switch"),
    (45, 45, Application, "a program was removed after an earlier error"),
    (46, 46, Reset, "the GPU stopped processing"),
    (48, 48, Reset, "a memory error that ECC could not mend"),
    (54, 54, Information, "auxiliary power is missing"),
    (60, 60, Contained, "a security engine error"),
    (62, 62, Reset, "the power management unit halted"),
    (63, 63, Information, "a damaged memory row was noted for replacement"),
    (64, 64, Reset, "a damaged memory row could not be noted for replacement"),
    (66, 67, Information, "a context switch firmware violation"),
    (68, 68, Application, "a video decoder error"),
    (69, 69, Application, "a graphics engine class error"),
    (70, 72, Contained, "a copy engine error"),
    (74, 74, Reset, "an NVLink error"),
    (75, 77, Contained, "a copy engine error"),
    (78, 78, Information, "a vGPU could not start"),
    (79, 79, Fatal, "the GPU has fallen off the bus"),
    (80, 80, Application, "a corrupt command buffer"),
    (82, 84, Contained, "a video engine error"),
    (85, 85, Contained, "a copy engine error"),
    (86, 86, Contained, "an optical flow engine error"),
    (88, 89, Contained, "a video decoder error"),
    (92, 92, Information, "many memory errors that ECC mended"),
    (93, 93, Information, "the information ROM wears out"),
    (94, 94, Contained, "a memory error that was contained to one program"),
    (95, 95, Reset, "a memory error that was not contained"),
    (96, 105, Contained, "a video engine error"),
    (106, 107, Information, "a test message"),
    (108, 108, Information, "a remote NVLink translation error"),
    (109, 109, Reset, "a context switch took too long"),
    (110, 110, Reset, "a security fault"),
    (119, 120, Reset, "the GPU's system processor does not answer"),
    (121, 121, Information, "a chip-to-chip link error that was mended"),
    (126, 135, Contained, "a copy engine error"),
    (136, 136, Reset, "NVLink training failed"),
    (137, 137, Information, "an NVLink privilege error"),
    (139, 139, Contained, "an optical flow engine error"),
    (140, 140, Reset, "a memory error escaped ECC"),
    (141, 141, Information, "a fast path error"),
    (142, 142, UNKNOWN, "a video encoder error"),
    (143, 143, Reset, "the GPU did not initialize"),
    (144, 146, Reset, "an NVLink error"),
    (147, 148, Information, "an NVLink error that was mended"),
    (149, 150, Reset, "an NVLink error"),
    (151, 151, Fatal, "a key rotation failed"),
    (152, 153, Information, "an accelerator error"),
    // The action itself is read from the GPU; see `Vitals::recovery_action`.
    (154, 154, Information, "what must be done with the GPU changed"),
    (155, 155, Reset, "an NVLink error"),
    (156, 156, Reset, "a damaged resource was noted for replacement"),
    (157, 157, Information, "a damaged resource could not be noted for replacement"),
    (158, 158, Reset, "a fatal timeout"),
    (159, 159, Reset, "a coherent link error"),
    (160, 161, Information, "a damaged memory channel"),
    (162, 165, Information, "a power smoothing message"),
    (166, 166, Information, "an NVLink encryption message"),
    (167, 167, UNKNOWN, "a fatal PCIe timeout"),
    (168, 168, Information, "memory capacity is reduced"),
    (169, 169, UNKNOWN, "the security engine halted"),
    (170, 170, Information, "an NVLink encryption message"),
    (171, 172, Information, "details of a memory error that ECC could not mend"),
    (173, 173, UNKNOWN, "a chip-to-chip link failed"),
    (175, 175, UNKNOWN, "a memory subsystem error"),
    (176, 176, UNKNOWN, "many PCIe errors that were mended"),
];

/// Class and words of an XID.
pub fn look_up(xid: u64) -> (Class, &'static str) {
    let row = TABLE.iter().find(|(first, last, ..)| (*first..=*last).contains(&xid));
    row.map_or((UNKNOWN, "an error that NVIDIA's catalogue does not explain"), |(_, _, class, what)| {
        (*class, what)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_no_xid_twice() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].0 <= pair[0].1 && pair[0].1 < pair[1].0, "{pair:?}");
        }
    }

    /// Spot checks against the catalogue's own words.
    #[test]
    fn classes_are_the_catalogues() {
        for (xid, class) in [
            (13, Application),
            (31, Application),
            (43, Information),
            (48, Reset),
            (63, Information),
            (79, Fatal),
            (94, Contained),
            (95, Reset),
            (109, Reset),
            (119, Reset),
            (142, Contained),
            (147, Information),
            (149, Reset),
            (151, Fatal),
            (171, Information),
            (999, UNKNOWN),
        ] {
            assert_eq!(look_up(xid).0, class, "XID {xid}");
        }
    }
}
