//! The figures as a table for people, as JSON, and beside the aims.

use std::fmt::Write;

use serde::Serialize;

use super::measure::{Figures, Phase, Rest};

/// What an operator of 500 apps should need: ready again within a restart of its node, in a limit that a small cluster grants without
/// a question, and next to nothing at rest. "Flat" is within what two runs of one size differ by here.
const NEW_SECONDS: f64 = 30.0;
const RESTART_SECONDS: f64 = 15.0;
const PEAK_MEBIBYTES: f64 = 96.0;
const REST_PERCENT: f64 = 1.0;
const FLAT: f64 = 1.25;
/// The size that they are for, and those that cost an app is compared between.
const APPS: usize = 500;
const FEW: usize = 50;
const MANY: usize = 2_000;

/// All of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Results {
    pub(super) rows: Vec<Figures>,
    pub(super) aims: Vec<Limit>,
    pub(super) run: Conditions,
}

/// How it was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conditions {
    pub(super) date: String,
    pub(super) cores: usize,
    /// Averages of a minute, before and after: others on this machine slow the seconds, and the CPU time hardly.
    pub(super) load_before: String,
    pub(super) load_after: String,
    /// None where the machine has no such cgroup.
    pub(super) memory_limit_mebibytes: Option<u64>,
}

/// One aim, and what came of it; nothing where its row was not measured or did not get there.
#[derive(Debug, Serialize)]
pub(super) struct Limit {
    name: String,
    aim: f64,
    result: Option<f64>,
    word: &'static str,
}

impl Limit {
    fn at_most(name: &str, aim: f64, measured: bool, result: Option<f64>) -> Self {
        let word = match result {
            Some(result) if result <= aim => "met",
            Some(_) => "missed",
            None if measured => "missed: it did not get there",
            None => "not measured",
        };
        Self { name: name.to_owned(), aim, result, word }
    }
}

pub(super) fn aims(rows: &[Figures]) -> Vec<Limit> {
    let of = |apps: usize| rows.iter().find(|row| row.row == apps.to_string());
    let at = of(APPS);
    let phases =
        |row: &Figures| [row.new.clone(), row.restart.clone()].into_iter().flatten().collect::<Vec<_>>();
    let peak = at.map(|row| phases(row).iter().map(|phase| phase.peak_mebibytes).fold(0.0, f64::max));
    let died = at.is_some_and(|row| phases(row).iter().any(|phase| phase.note.is_some()));
    let rests = || rows.iter().filter_map(|row| row.rest.as_ref());
    let writes = rests().map(|rest| rest.calls.writes + rest.calls.events).max();
    let ratio = |of_phase: fn(&Figures) -> Option<&Phase>| {
        let cost = |apps| {
            of(apps).and_then(of_phase).filter(|p| p.note.is_none()).map(|p| p.cpu_milliseconds_an_app)
        };
        Some(cost(MANY)? / cost(FEW)?)
    };
    let both = of(FEW).is_some() && of(MANY).is_some();
    let new = at.and_then(|row| row.new.as_ref()?.seconds);
    let restart = at.and_then(|row| row.restart.as_ref()?.seconds);
    let rest = at.and_then(|row| row.rest.as_ref()).map(|rest| rest.cpu_percent_of_a_core);
    vec![
        Limit::at_most("500 new apps, seconds", NEW_SECONDS, at.is_some(), new),
        Limit::at_most("500 existing apps after a restart, seconds", RESTART_SECONDS, at.is_some(), restart),
        Limit::at_most(
            "peak resident memory with 500 apps, MiB",
            PEAK_MEBIBYTES,
            at.is_some(),
            peak.filter(|_| !died),
        ),
        Limit::at_most("500 apps at rest, % of a core", REST_PERCENT, at.is_some(), rest),
        Limit::at_most("CPU a new app, 2,000 to 50", FLAT, both, ratio(|row| row.new.as_ref())),
        Limit::at_most("CPU an existing app, 2,000 to 50", FLAT, both, ratio(|row| row.restart.as_ref())),
        Limit::at_most("writes at rest, in any row", 0.0, rests().next().is_some(), writes.map(|n| n as f64)),
    ]
}

/// One row, when it is done.
pub(super) fn lines(figures: &Figures) -> String {
    let Figures {
        row,
        apps: _,
        replicas: _,
        new,
        restart,
        rest,
        rollout_of_one,
        rollout_of_all,
        removal,
        failed,
    } = figures;
    let mut out = String::new();
    let phases = [
        ("new", new),
        ("restart", restart),
        ("rollout of one", rollout_of_one),
        ("rollout of all", rollout_of_all),
        ("removal", removal),
    ];
    for (name, phase) in phases {
        if let Some(phase) = phase {
            line(&mut out, row, name, phase);
        }
    }
    if let Some(Rest { seconds, cpu_percent_of_a_core, calls, questions }) = rest {
        let _infallible = writeln!(
            out,
            "{row:>7}  at rest for {seconds:.0} s: {cpu_percent_of_a_core:.2} % of a core, {} writes, {} other calls, {questions} questions to pods",
            calls.writes + calls.events,
            calls.total() - calls.writes - calls.events,
        );
    }
    if let Some(why) = failed {
        let _infallible = writeln!(out, "{row:>7}  came no further: {why}");
    }
    out
}

pub(super) const HEADER: &str = "    row  phase           seconds  CPU s  ms/app  peak MiB  plans (failed)     calls: gets lists watches writes events  sent MiB  received";

fn line(out: &mut String, row: &str, name: &str, phase: &Phase) {
    let Phase {
        seconds,
        done,
        of,
        cpu_seconds,
        cpu_milliseconds_an_app,
        peak_mebibytes,
        plans,
        failed_plans,
        calls,
        sent_mebibytes,
        received_mebibytes,
        connections: _,
        note,
    } = phase;
    let seconds = seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
    let count = |n: &Option<u64>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let plans = format!("{} ({})", count(plans), count(failed_plans));
    let calls = {
        let super::calls::Calls { events, gets, lists, watches, writes } = calls;
        format!("{gets:>5} {lists:>5} {watches:>7} {writes:>6} {events:>6}")
    };
    let note = match note {
        Some(note) => format!("  {done} of {of}: {note}"),
        None => String::new(),
    };
    let _infallible = writeln!(
        out,
        "{row:>7}  {name:<14} {seconds:>8} {cpu_seconds:>6.2} {cpu_milliseconds_an_app:>7.1} {peak_mebibytes:>9.1}  {plans:<15}    {calls:>38} {sent_mebibytes:>9.1} {received_mebibytes:>9.1}{note}"
    );
}

/// The aims, met or not.
pub(super) fn aim_lines(aims: &[Limit]) -> String {
    let mut out = String::new();
    for Limit { name, aim, result, word } in aims {
        let result = result.map_or_else(|| "-".to_owned(), |result| format!("{result:.2}"));
        let _infallible = writeln!(out, "{name:<45} at most {aim:>6} {result:>9}  {word}");
    }
    out
}
