//! Memory for queues, and addresses as a virtio function sees them.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::mmio::PciWindow;

/// Pages for queues: a network takes 4, a disk 2.
const PAGES: usize = 32;
/// What a full pool answers, so that the crate reports an error.
const NONE: (PhysAddr, NonNull<u8>) = (0, NonNull::dangling());

#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_SIZE]>);

/// The pages, and which of them are in use, by bits.
struct Pool {
    pages: [Page; PAGES],
    used: AtomicU32,
}

// SAFETY: a page is reached only through the pointer that `take` gave out, and by one owner
// until it comes back: the bits of `used` are taken and freed atomically.
unsafe impl Sync for Pool {}

impl Pool {
    const fn new() -> Self {
        Self {
            pages: [const { Page(UnsafeCell::new([0; PAGE_SIZE])) }; PAGES],
            used: AtomicU32::new(0),
        }
    }

    /// Takes `count` pages that lie together, zeroed.
    fn take(&self, count: usize) -> Option<NonNull<u8>> {
        if count == 0 || count > PAGES {
            return None;
        }
        let bits = (u32::MAX >> (32 - count)) as u64;
        let (mut first, mut taken) = (0, false);
        while !taken && first + count <= PAGES {
            let mask = (bits << first) as u32;
            let before = self.used.fetch_or(mask, Ordering::Acquire);
            taken = before & mask == 0;
            if !taken {
                // Those that were free go back.
                self.used.fetch_and(!(mask & !before), Ordering::Release);
                first += 1;
            }
        }
        let start = self
            .pages
            .get(first)
            .filter(|_| taken)?
            .0
            .get()
            .cast::<u8>();
        // SAFETY: the pages lie inside the pool, and are nobody else's since their bits were
        // taken.
        unsafe { start.write_bytes(0, count * PAGE_SIZE) };
        NonNull::new(start)
    }

    /// Takes pages back. Returns whether they were pages of this pool.
    fn give_back(&self, start: NonNull<u8>, count: usize) -> bool {
        let offset = start.addr().get().wrapping_sub(self.pages.as_ptr().addr());
        let first = offset / PAGE_SIZE;
        if !offset.is_multiple_of(PAGE_SIZE) || count == 0 || first + count > PAGES {
            return false;
        }
        let mask = (u64::from(u32::MAX >> (32 - count)) << first) as u32;
        self.used.fetch_and(!mask, Ordering::Release) & mask == mask
    }
}

static POOL: Pool = Pool::new();

/// A guest's memory as a function reaches it: bus addresses are virtual ones.
pub struct Memory;

// SAFETY: pages come from the pool, page-aligned, zeroed and each to one owner; addresses are
// valid as they stand, because virtual, physical and bus addresses are the same in a guest.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        POOL.take(pages)
            .map_or(NONE, |start| (start.addr().get() as u64, start))
    }

    unsafe fn dma_dealloc(_: PhysAddr, start: NonNull<u8>, pages: usize) -> i32 {
        i32::from(!POOL.give_back(start, pages)).wrapping_neg()
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, size: usize) -> NonNull<u8> {
        assert!(
            PciWindow::new().contains(address, size as u64),
            "registers at {address:#x} are outside of the PCI window"
        );
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().expose_provenance().get() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_given_out_once_zeroed_and_come_back() {
        let pool = Pool::new();
        let one = pool.take(1).expect("a page");
        let three = pool.take(3).expect("three pages");
        assert_eq!(three.addr().get() - one.addr().get(), PAGE_SIZE);
        // SAFETY: this test owns the page.
        unsafe { one.write_bytes(0xee, PAGE_SIZE) };
        assert!(pool.give_back(one, 1));
        assert!(!pool.give_back(one, 1), "twice");
        // The hole of one page is too small for two.
        let two = pool.take(2).expect("two pages");
        assert_eq!(two.addr().get() - one.addr().get(), 4 * PAGE_SIZE);
        let again = pool.take(1).expect("the first page");
        assert_eq!(again, one);
        // SAFETY: as above.
        assert_eq!(unsafe { again.read() }, 0);
    }

    #[test]
    fn a_full_pool_and_foreign_pages_are_refused() {
        let pool = Pool::new();
        assert_eq!(pool.take(0), None);
        assert_eq!(pool.take(PAGES + 1), None);
        let all = pool.take(PAGES).expect("all");
        assert_eq!(pool.take(1), None);
        let inside = all.addr().get() + 8;
        let inside = NonNull::new(inside as *mut u8).expect("an address");
        assert!(!pool.give_back(inside, 1));
        assert!(!pool.give_back(NonNull::dangling(), 1));
        assert!(!pool.give_back(all, PAGES + 1));
        assert!(pool.give_back(all, PAGES));
    }
}
