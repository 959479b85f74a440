//! The scenarios, each under continuous load.

mod control;
mod rollout;

use crate::harness::runner::Scenario;

/// Names a scenario after its function.
macro_rules! scenarios {
    ($($module:ident :: $name:ident $(($alone:ident))?),* $(,)?) => {
        vec![$(Scenario {
            name: stringify!($name),
            alone: [$(stringify!($alone))?].contains(&"alone"),
            run: |scene| Box::pin($module::$name(scene)),
        }),*]
    };
}

/// All of them, the longest first so that the last to run are short.
pub fn all() -> Vec<Scenario> {
    scenarios![rollout::rollout, control::plain_deployment_loses_tasks]
}
