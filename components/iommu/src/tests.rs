//! Both back ends against models of the units, which read the tables as the
//! specifications say and remember what they read until they are told to
//! forget it. The models use numbers of their own, not those of the drivers.

mod amd_model;
mod board;
mod intel_model;
mod reserved;
mod restart;
mod service;
mod setup;
mod several;
mod units;
