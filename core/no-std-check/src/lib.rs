//! A library that defines what std would define: the panic handler and the allocator. If anything below
//! `livepeer-core` pulled std in, there would be two of each and this crate would not compile.
//! `cargo check -p no-std-check --features check`; with the feature `prove` it must fail.
#![cfg_attr(feature = "check", no_std)]

#[cfg(feature = "prove")]
extern crate std;

#[cfg(feature = "check")]
mod check {
    use core::alloc::{GlobalAlloc, Layout};

    use livepeer_core as _;

    struct Never;

    // SAFETY: it never returns memory.
    unsafe impl GlobalAlloc for Never {
        unsafe fn alloc(&self, _: Layout) -> *mut u8 {
            core::ptr::null_mut()
        }

        unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
    }

    #[global_allocator]
    static NEVER: Never = Never;

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }
}
