//! What scenarios are made of: a namespace each, steps that log themselves, and a watch that never looks away.
//!
//! - [`world`]: the cluster, its tools and images. [`charts`]: the operator, installed as a user would.
//! - [`app`]: the app under test as a manifest. [`load`]: the load generator beside it.
//! - [`scene`]: one test's namespace; [`given`], [`when`], [`then`]: its steps.
//! - [`databases`]: PostgreSQL for those that share a queue. [`crash`]: signals for processes inside pods.
//! - [`plain`]: the same pods without Graceful, to compare with.
//! - [`browser`]: a real Chromium on this machine.
//! - [`observer`]: P1 and P3, held for the whole of each test. [`wait`]: level-triggered waits.
//! - [`usage`]: what the operator costs.
//! - [`runner`]: side by side, with a [`dump`] of everything when one fails.

pub mod app;
pub mod browser;
pub mod charts;
pub mod crash;
pub mod databases;
pub mod dump;
pub mod given;
pub mod load;
pub mod observer;
pub mod plain;
pub mod python;
pub mod runner;
pub mod scene;
pub mod then;
pub mod usage;
pub mod wait;
pub mod when;
pub mod world;

use std::time::Duration;

/// A pod starts in about 2 s here; this much is for a machine that does five things at once.
pub const STARTS: Duration = Duration::from_secs(60);
/// A rollout of a few pods whose tasks take some seconds.
pub const ROLLS: Duration = Duration::from_secs(150);
