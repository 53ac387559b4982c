//! What the allocator keeps for later: little, and given back to the machine.
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

/// Lets all threads share one heap. With a heap for each, what is free in one is of no use in another, and how much that is
/// depends on how threads took turns: 80 to 90 MiB instead of 80 with 5,000 nodes. To be called before there are threads.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt takes no pointer; it is called before there are other threads. If it is refused, there are several heaps.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
