//! What the allocator keeps for later, given back to the machine.
//!
//! Lists of everything pass through in pages; when the last one is read, the allocator holds tens of megabytes that
//! nobody needs again before the next break of a watch.

/// Gives back what is free. It takes some milliseconds, in which other threads may have to wait to allocate.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and touches only what glibc's allocator holds free, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
