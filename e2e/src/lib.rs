//! The proof: scenarios on a real cluster, under load, with a ledger that trusts neither server nor operator.
//!
//! - [`wire`]: what load generator, harness and task servers say to each other.
//! - [`loadgen`]: the load generator and its ledger, a pod beside the app. [`streams`]: apps that it also is, and their clients.
//! - [`harness`]: what scenarios are made of. [`scenarios`]: the scenarios. [`demo`]: for people. [`mod@bench`], [`scale`]: figures.

pub mod bench;
pub mod demo;
pub mod harness;
pub mod loadgen;
pub mod scale;
pub mod scenarios;
pub mod streams;
pub mod wire;
