//! The results: as JSON for programs, as a table for people, beside what was aimed at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;
use serde::Serialize;

use super::requests::{self, Requests};
use super::stream::Stream;
use super::subject::{ALL, Subject};
use crate::aim::Aim;
use crate::machine::Machine;

const OF_NGINX: f64 = 1.3;
const ADDED_MICROSECONDS: f64 = 100.0;
const SOCKET_BYTES: f64 = 8.0 * 1024.0;
const MEBIBYTES: f64 = 10.0;

/// What the measurements gave.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) requests: BTreeMap<Subject, Requests>,
    pub(crate) streams: BTreeMap<Subject, Stream>,
    /// How many were open, and the bytes of each.
    pub(crate) sockets: (usize, BTreeMap<Subject, f64>),
    /// The gate's size in bytes.
    pub(crate) program: u64,
}

/// All that was measured, with units in the names.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    /// How many were open.
    sockets: usize,
    subjects: BTreeMap<&'static str, Figures>,
    image_mebibytes: f64,
    aims: Vec<Aim>,
    machine: Machine,
    run: Run,
}

/// One subject's. What no proxy has is null.
#[derive(Debug, Serialize)]
struct Figures {
    requests_per_second: f64,
    processor_microseconds_per_request: Option<f64>,
    paced_p50_microseconds: f64,
    paced_p99_microseconds: f64,
    stream_gibibytes_per_second: f64,
    stream_processor_seconds_per_gibibyte: Option<f64>,
    idle_socket_bytes: Option<f64>,
}

/// How it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) date: String,
    pub(crate) rounds: usize,
    pub(crate) seconds_each: u64,
}

impl Results {
    pub(crate) fn of(measured: Measured, machine: Machine, run: Run) -> anyhow::Result<Self> {
        let Measured { requests, streams, sockets: (open, sockets), program } = measured;
        let figures = |subject: Subject| {
            let (requests, stream) = requests.get(&subject).zip(streams.get(&subject))?;
            let Requests { per_second, processor, paced } = *requests;
            let Stream { seconds, processor: stream_processor } = *stream;
            Some(Figures {
                requests_per_second: per_second,
                processor_microseconds_per_request: processor,
                paced_p50_microseconds: paced.p50 * 1000.0,
                paced_p99_microseconds: paced.p99 * 1000.0,
                stream_gibibytes_per_second: 1.0 / seconds,
                stream_processor_seconds_per_gibibyte: stream_processor,
                idle_socket_bytes: sockets.get(&subject).copied(),
            })
        };
        let subjects = ALL.into_iter().map(|subject| Some((subject.name(), figures(subject)?)));
        let subjects: BTreeMap<_, _> = subjects.collect::<Option<_>>().context("a subject is missing")?;
        let [direct, gate, nginx] =
            [Subject::Direct, Subject::Gate, Subject::Nginx].map(|subject| &subjects[subject.name()]);
        let cost = |of: &Figures| of.processor_microseconds_per_request.context("no processor time");
        let image_mebibytes = program as f64 / f64::from(1 << 20);
        let aims = vec![
            Aim::at_most("processor time a request, of nginx's", OF_NGINX, cost(gate)? / cost(nginx)?),
            Aim::at_most(
                "added at p50 below saturation, µs",
                ADDED_MICROSECONDS,
                gate.paced_p50_microseconds - direct.paced_p50_microseconds,
            ),
            Aim::at_most(
                "an idle WebSocket, bytes",
                SOCKET_BYTES,
                gate.idle_socket_bytes.context("no sockets")?,
            ),
            Aim::at_most("image, MiB", MEBIBYTES, image_mebibytes),
        ];
        Ok(Self { sockets: open, subjects, image_mebibytes, aims, machine, run })
    }

    /// What is printed.
    pub(crate) fn table(&self) -> anyhow::Result<String> {
        let mut out = String::new();
        writeln!(
            out,
            "{:<8} {:>10} {:>8} {:>16} {:>16} {:>8} {:>8} {:>8}",
            "", "requests/s", "CPU µs", "p50 µs (added)", "p99 µs (added)", "GiB/s", "CPU s", "B/socket"
        )?;
        let direct = &self.subjects[Subject::Direct.name()];
        let some = |figure: Option<f64>, decimals| {
            figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.decimals$}"))
        };
        for subject in ALL {
            let of = &self.subjects[subject.name()];
            let added = |figure: fn(&Figures) -> f64| match subject {
                Subject::Direct => format!("{:.0}", figure(of)),
                _ => format!("{:.0} ({:+.0})", figure(of), figure(of) - figure(direct)),
            };
            writeln!(
                out,
                "{:<8} {:>10.0} {:>8} {:>16} {:>16} {:>8.2} {:>8} {:>8}",
                subject.name(),
                of.requests_per_second,
                some(of.processor_microseconds_per_request, 1),
                added(|of| of.paced_p50_microseconds),
                added(|of| of.paced_p99_microseconds),
                of.stream_gibibytes_per_second,
                some(of.stream_processor_seconds_per_gibibyte, 2),
                some(of.idle_socket_bytes, 0),
            )?;
        }
        writeln!(
            out,
            "requests/s and CPU a request: {} connections; p50 and p99: {} connections, a request each {} ms; CPU s a GiB; {} sockets\n",
            requests::CONNECTIONS,
            requests::PACED_CONNECTIONS,
            requests::PACE.as_millis(),
            self.sockets,
        )?;
        for aim in &self.aims {
            writeln!(out, "{aim}")?;
        }
        Ok(out)
    }
}
