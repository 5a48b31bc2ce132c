//! The logic of the web guest: HTTP requests, the page, the metrics, the server.
//!
//! Responsible for: answering HTTP/1.0 and 1.1 over smoltcp sockets in memory
//! that is fixed when the guest is built.
//! Must never: allocate, panic on anything a client sends, or keep a client
//! waiting because of another one.
//! May call: smoltcp sockets; nothing of the machine.
//! Invariants: every connection owns one socket and one request buffer, both
//! bounded; a response is written only if the socket has room for all of it.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::cast_possible_truncation))]

pub mod http;
pub mod metrics;
pub mod page;
pub mod report;
pub mod server;
