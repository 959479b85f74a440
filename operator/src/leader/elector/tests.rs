use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u32) -> Duration {
    SECOND * seconds
}

fn elector(name: &str) -> Elector {
    Elector::new(Identity(name.to_owned()), Timing::default())
}

fn record(version: u64, holder: Option<&str>) -> Record {
    let holder = holder.map(|name| Identity(name.to_owned()));
    Record { version: Version(version.to_string()), holder, lease: Timing::default().lease_duration }
}

fn version(version: u64) -> Option<Version> {
    Some(Version(version.to_string()))
}

/// Reads the record at this time.
fn look(elector: &mut Elector, record: Option<Record>, now: Duration) {
    elector.asks(now);
    elector.saw(record, now);
}

#[test]
fn a_record_is_taken_once_it_has_not_changed_for_the_whole_lease() {
    let mut standby = elector("b");
    assert_eq!(standby.step(at(0)), Step::Read);
    look(&mut standby, Some(record(1, Some("a"))), at(0));
    look(&mut standby, Some(record(2, Some("a"))), at(9));
    look(&mut standby, Some(record(2, Some("a"))), at(23));
    assert!(matches!(standby.step(at(23)), Step::Wait(_)));
    assert_eq!(standby.step(at(24)), Step::Write(version(2)));
}

#[test]
fn a_holder_that_asked_for_a_longer_lease_gets_it() {
    let mut standby = elector("b");
    look(&mut standby, Some(Record { lease: at(30), ..record(1, Some("a")) }), at(0));
    look(&mut standby, Some(Record { lease: at(30), ..record(1, Some("a")) }), at(29));
    assert!(!matches!(standby.step(at(29)), Step::Write(_)));
    look(&mut standby, Some(Record { lease: at(30), ..record(1, Some("a")) }), at(30));
    assert_eq!(standby.step(at(30)), Step::Write(version(1)));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let mut standby = elector("b");
    look(&mut standby, Some(record(1, Some("a"))), at(0));
    look(&mut standby, Some(record(2, None)), at(1));
    assert_eq!(standby.step(at(1)), Step::Write(version(2)));
}

#[test]
fn a_lease_that_vanished_is_waited_out_and_one_that_never_was_is_made() {
    let mut first = elector("a");
    look(&mut first, None, at(0));
    assert_eq!(first.step(at(1)), Step::Write(None));

    let mut standby = elector("b");
    look(&mut standby, Some(record(1, Some("a"))), at(0));
    look(&mut standby, None, at(5));
    assert!(!matches!(standby.step(at(19)), Step::Write(_)));
    assert_eq!(standby.step(at(20)), Step::Write(None));
}

#[test]
fn a_term_is_counted_from_when_the_renewal_was_sent() {
    let mut leader = elector("a");
    look(&mut leader, None, at(0));
    leader.wrote(record(1, Some("a")), at(0), at(3));
    assert_eq!(leader.until(), Some(at(7)));
    assert_eq!(leader.step(at(7)), Step::Lost(Lost::Expired));
    leader.wrote(record(2, Some("a")), at(6), at(8));
    assert_eq!(leader.until(), None, "an answer that comes after the end does not begin it anew");
}

#[test]
fn a_leader_that_reads_another_name_stops() {
    let mut leader = elector("a");
    leader.wrote(record(1, Some("a")), at(0), at(0));
    leader.failed();
    look(&mut leader, Some(record(2, Some("b"))), at(1));
    assert_eq!(leader.step(at(1)), Step::Lost(Lost::Taken));
}

#[test]
fn a_write_whose_answer_was_lost_is_no_term_until_it_is_written_again() {
    let mut standby = elector("a");
    look(&mut standby, None, at(0));
    standby.asks(at(1));
    standby.failed();
    look(&mut standby, Some(record(1, Some("a"))), at(2));
    assert_eq!(standby.until(), None);
    assert_eq!(standby.step(at(2)), Step::Write(version(1)));
}

/// What one call meets, in true milliseconds.
#[derive(Clone, Debug)]
struct Weather {
    /// The process stands still before it sends.
    pause: u64,
    there: u64,
    back: u64,
    lost: bool,
    /// The process is cut off: this and so many more of its calls never arrive.
    cut: u32,
    /// Answered with a 500 instead of being done.
    fails: bool,
    /// The process stops or is killed before this call.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Released,
    Killed,
}

/// What reaches the API server.
struct Arrival {
    at: u64,
    /// Whose, and in which of its lives: answers to a former one are heard by nobody.
    from: (usize, u32),
    call: Call,
    sent: Duration,
    weather: Weather,
}

enum Call {
    Read,
    Write(Option<Version>),
    Release(Version),
}

/// What a process hears.
enum Heard {
    Read(Option<Record>),
    UnseenWrites(Record, Duration),
    Failure,
}

struct Process {
    elector: Elector,
    life: u32,
    /// Its clock runs so many thousandths as fast as true time.
    rate: u64,
    offset: u64,
    /// So many of its next calls never arrive.
    cut: u32,
    /// The call that is waited for, if any; answers to others are late.
    waits: Option<u64>,
    wakes: u64,
}

impl Process {
    fn own(&self, now: u64) -> Duration {
        Duration::from_micros(self.offset * 1000 + now * self.rate)
    }

    /// As true milliseconds, rounded up.
    fn truly(&self, own: Duration) -> u64 {
        u64::try_from(own.as_micros()).unwrap().div_ceil(self.rate)
    }

    fn leads(&self, now: u64) -> bool {
        self.elector.until().is_some_and(|until| self.own(now) < until)
    }
}

/// Two or three processes, one record, true time.
struct World {
    processes: Vec<Process>,
    record: Option<Record>,
    versions: u64,
    arrivals: Vec<(u64, Arrival)>,
    answers: Vec<(u64, u64, (usize, u32), Heard)>,
    calls: u64,
    weather: std::vec::IntoIter<Weather>,
    terms: usize,
}

const CALM: Weather = Weather { pause: 0, there: 5, back: 5, lost: false, cut: 0, fails: false, end: None };

impl World {
    fn new(clocks: &[(u64, u64)], weather: Vec<Weather>) -> Self {
        let process = |(n, (rate, offset)): (usize, &(u64, u64))| Process {
            elector: elector(&format!("{n}-0")),
            life: 0,
            rate: *rate,
            offset: *offset,
            cut: 0,
            waits: None,
            wakes: 0,
        };
        Self {
            processes: clocks.iter().enumerate().map(process).collect(),
            record: None,
            versions: 0,
            arrivals: Vec::new(),
            answers: Vec::new(),
            calls: 0,
            weather: weather.into_iter(),
            terms: 0,
        }
    }

    /// Plays until the weather has been calm for so long. At each event, at most one leads.
    fn play(&mut self, calm: u64) -> Result<u64, TestCaseError> {
        let (mut now, mut calm_since) = (0, None);
        loop {
            let wakes = self.processes.iter().filter(|p| p.waits.is_none()).map(|p| p.wakes);
            let events = self.arrivals.iter().map(|(at, _)| *at).chain(self.answers.iter().map(|a| a.0));
            now = wakes.chain(events).min().unwrap_or(now).max(now);
            if self.weather.len() == 0 {
                let since = *calm_since.get_or_insert(now);
                if now > since + calm {
                    return Ok(now);
                }
            }
            self.event(now);
            let leaders = self.processes.iter().filter(|p| p.leads(now)).count();
            prop_assert!(leaders <= 1, "{leaders} lead at {now}");
        }
    }

    fn event(&mut self, now: u64) {
        if let Some(n) = self.arrivals.iter().position(|(at, _)| *at == now) {
            let (id, arrival) = (self.arrivals[n].1.sent, self.arrivals.swap_remove(n).1);
            return self.arrives(now, id, arrival);
        }
        if let Some(n) = self.answers.iter().position(|a| a.0 == now) {
            let (_, id, from, heard) = self.answers.swap_remove(n);
            return self.hears(now, id, from, heard);
        }
        if let Some(n) = self.processes.iter().position(|p| p.waits.is_none() && p.wakes <= now) {
            self.steps(now, n);
        }
    }

    fn steps(&mut self, now: u64, n: usize) {
        let process = &mut self.processes[n];
        let own = process.own(now);
        let call = match process.elector.step(own) {
            Step::Wait(left) => {
                process.wakes = now + process.truly(left).max(1);
                return;
            }
            Step::Lost(_) => return self.forget_process(now, n),
            Step::Read => Call::Read,
            Step::Write(version) => Call::Write(version),
        };
        let weather = self.weather.next().unwrap_or(CALM);
        let call = match weather.end {
            None => call,
            Some(End::Killed) => return self.forget_process(now, n),
            Some(End::Released) => {
                let version = self.processes[n].elector.own_version().cloned();
                let from = (n, self.processes[n].life);
                self.forget_process(now, n);
                if let Some(version) = version {
                    self.send(now, from, Call::Release(version), weather);
                }
                return;
            }
        };
        self.send(now + weather.pause, (n, self.processes[n].life), call, weather);
    }

    /// Sent then: a pause lies between the decision and the sending.
    fn send(&mut self, now: u64, from: (usize, u32), call: Call, weather: Weather) {
        let process = &mut self.processes[from.0];
        let sent = process.own(now);
        self.calls += 1;
        let id = self.calls;
        if process.life == from.1 {
            process.elector.asks(sent);
            process.waits = Some(id);
            let given_up = now + process.truly(Timing::default().renew_deadline / 2);
            self.answers.push((given_up, id, from, Heard::Failure));
        }
        process.cut = process.cut.max(weather.cut);
        if process.cut > 0 {
            process.cut -= 1;
            return;
        }
        let arrival = Arrival { at: id, from, call, sent, weather };
        self.arrivals.push((now + arrival.weather.there, arrival));
    }

    fn arrives(&mut self, now: u64, sent: Duration, arrival: Arrival) {
        let Arrival { at: id, from, call, weather, .. } = arrival;
        let holder = self.processes[from.0].elector.identity().clone();
        let current = self.record.as_ref().map(|r| r.version.clone());
        // A process that ended meanwhile wrote under its former name.
        let holder = if self.processes[from.0].life == from.1 { holder } else { Identity("gone".to_owned()) };
        let heard = match call {
            _ if weather.fails => Heard::Failure,
            Call::Read => Heard::Read(self.record.clone()),
            Call::Write(version) if version == current => Heard::UnseenWrites(self.puts(Some(holder)), sent),
            Call::Release(version) if Some(&version) == current.as_ref() => {
                Heard::UnseenWrites(self.puts(None), sent)
            }
            Call::Write(_) | Call::Release(_) => Heard::Failure,
        };
        if !weather.lost {
            self.answers.push((now + weather.back, id, from, heard));
        }
    }

    fn puts(&mut self, holder: Option<Identity>) -> Record {
        self.versions += 1;
        let version = Version(self.versions.to_string());
        let record = Record { version, holder, lease: Timing::default().lease_duration };
        self.record = Some(record.clone());
        record
    }

    fn hears(&mut self, now: u64, id: u64, from: (usize, u32), heard: Heard) {
        let process = &mut self.processes[from.0];
        if process.life != from.1 || process.waits != Some(id) {
            return;
        }
        process.waits = None;
        process.wakes = now;
        let (own, led) = (process.own(now), process.elector.until().is_some());
        match heard {
            Heard::Read(record) => process.elector.saw(record, own),
            Heard::UnseenWrites(record, sent) => process.elector.wrote(record, sent, own),
            Heard::Failure => process.elector.failed(),
        }
        self.terms += usize::from(!led && process.elector.until().is_some());
    }

    fn forget_process(&mut self, now: u64, n: usize) {
        let process = &mut self.processes[n];
        process.life += 1;
        process.elector = elector(&format!("{n}-{}", process.life));
        process.waits = None;
        process.wakes = now + 1;
    }
}

fn weather() -> impl Strategy<Value = Weather> {
    let delay = || prop_oneof![40 => 1..50_u64, 8 => 50..4_000_u64, 1 => 4_000..40_000_u64];
    let pause = prop_oneof![50 => Just(0_u64), 1 => 1..60_000_u64];
    let end = prop_oneof![30 => Just(None), 1 => Just(Some(End::Killed)), 1 => Just(Some(End::Released))];
    let cut = prop_oneof![9 => Just(0_u32), 1 => 1..6_u32];
    let (lost, fails) = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1));
    (pause, delay(), delay(), lost, cut, fails, end).prop_map(
        |(pause, there, back, lost, cut, fails, end)| Weather { pause, there, back, lost, cut, fails, end },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// P1: whatever the network, the scheduler and the clocks do, two never lead at once; and once all is calm, one does.
    #[test]
    fn two_never_lead_and_one_will(
        clocks in prop::collection::vec((prop_oneof![Just(1_000_u64), Just(2_100_u64), 1_000..2_100_u64], 0..10_000_000_u64), 2..=3),
        weather in prop::collection::vec(weather(), 0..300),
    ) {
        let mut world = World::new(&clocks, weather);
        let now = world.play(120_000)?;
        prop_assert!(world.processes.iter().any(|p| p.leads(now)), "nobody leads in the end");
        prop_assert!(world.terms > 0);
    }
}
