//! Giving memory back to the operating system after many clients have left.

/// Returns what the allocator keeps. Takes milliseconds and locks of the allocator: not for a worker's thread.
#[cfg(target_env = "gnu")]
pub(crate) fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time from any thread; it touches free memory only.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets the buffers of large messages go back as soon as they are freed. By itself glibc's limit for this grows with
/// the buffers, and what lies below it stays with each thread's heap.
#[cfg(target_env = "gnu")]
pub(crate) fn return_large_buffers() {
    const LARGE: libc::c_int = 1 << 20;
    // SAFETY: mallopt(3) with a valid parameter; called before other threads allocate.
    #[allow(unsafe_code)]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Other C libraries return memory by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim() {}

/// As [`trim`].
#[cfg(not(target_env = "gnu"))]
pub(crate) fn return_large_buffers() {}
