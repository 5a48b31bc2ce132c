//! Binds the vmm to seL4: the guest's thread, address space and RAM, its BAR
//! pages, one endpoint for its faults and one notification for its interrupts.

#![no_std]
#![no_main]

mod program;

runtime::component!(program::main);
