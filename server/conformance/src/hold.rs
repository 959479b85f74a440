//! Holds the rules, in their order.

use anyhow::Context;
use tokio::time::Instant;

use crate::config::Flags;
use crate::life::Life;
use crate::outcome::Not;
use crate::pod::Pod;
use crate::report::{Held, Report, Verdict};
use crate::rules::{self, Rule};
use crate::run::Run;
use crate::token::Signer;

/// Holds the rules that were asked for.
///
/// # Errors
/// Where nothing can be held: nothing answers, or a request that was given does not do what its flag says.
pub async fn hold(flags: Flags) -> anyhow::Result<Report> {
    let admin = flags.admin.clone().context("give the admin port's URL: http://POD:9808")?;
    let signer = Signer::read(flags.token_key.as_deref())?;
    let life = Life::of(flags.pid, &flags.command, signer.public());
    let pod = Pod::new(admin.0, signer);
    let (only, mut run) = (flags.only, Run::new(pod, flags.requests, life));
    run.life.start(&run.pod).await?;
    run.prepare().await?;
    let mut report = Report::default();
    let wanted = |rule: &&Rule| only.is_empty() || only.iter().any(|name| name == rule.name);
    let wanted: Vec<&Rule> = rules::all().filter(wanted).collect();
    for rule in wanted {
        report.rules.push(held(&mut run, rule).await);
    }
    Ok(report)
}

async fn held(run: &mut Run, rule: &Rule) -> Held {
    let begun = Instant::now();
    let missing = rule.needs.iter().find_map(|need| run.missing(*need));
    let outcome = match missing {
        Some(missing) => Err(Not::Held(missing)),
        None => (rule.hold)(run).await,
    };
    let (verdict, reason) = match outcome {
        Ok(()) => (Verdict::Passed, String::new()),
        Err(Not::Kept(reason)) => (Verdict::Failed, reason),
        Err(Not::Held(reason)) => (Verdict::Skipped, reason),
    };
    Held { rule: rule.name, says: rule.says, verdict, reason, took: begun.elapsed() }
}
