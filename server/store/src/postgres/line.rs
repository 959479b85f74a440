//! The lines of tasks that wait: the statements that look for those that have something due, and claim from them.
//!
//! A line is a queue's, a key's (`lane`) and a priority's (`rank`, its negative). There may be hundreds of thousands in one whose time has
//! not come, and claims come all the time: so none of these reads them. The index has the lines one after the other, and in each the tasks
//! in the order of their times: the next line is one step down the index, and what is due in it one more.

use super::record::{clock, now};

/// A priority in the order of the index. It is an expression of the index too, and must be written as it is there.
macro_rules! rank {
    () => {
        "(- priority::integer)"
    };
}

/// Lines of one queue that are looked at in one round. Clients choose priorities and keys, and may choose each another one: of more the
/// next are looked at when nothing is due in these.
macro_rules! most {
    () => {
        "100"
    };
}

pub(super) const MOST_LINES: usize = 100;

/// Before any rank.
pub(super) const BEFORE: i32 = -100_000;

/// Whether what is in a queue may be claimed without counting first, or its row is locked and was counted (`$held`).
macro_rules! open {
    ($held:literal) => {
        concat!(
            "NOT q.paused AND ((q.concurrency IS NULL AND q.per_key IS NULL AND q.rate IS NULL) OR q.name = ANY(",
            $held,
            "))"
        )
    };
}

/// Queues that are bounded and have something waiting: what they may take, and what their buckets hold.
macro_rules! bounded {
    () => {
        concat!(
            "SELECT ",
            $crate::postgres::queues::settings_columns!(),
            ", tokens, filled, ",
            now!(),
            " AS now FROM graceful_queues WHERE NOT paused AND (concurrency IS NOT NULL OR per_key IS NOT NULL OR rate IS NOT NULL) \
             AND EXISTS (SELECT FROM graceful_tasks t WHERE t.state = 'queued' AND t.queue = name) ORDER BY name"
        )
    };
}

pub(super) const BOUNDED: &str = bounded!();

/// The same, for who is to claim: whoever else claims at this moment goes on without them. A queue's places are counted only under its
/// lock, so that two claims never fill the same one.
pub(super) const BOUNDED_LOCKED: &str = concat!(bounded!(), " FOR NO KEY UPDATE SKIP LOCKED");

/// What runs of these queues (`$1`), by key.
pub(super) const RUNNING: &str = "SELECT queue, lane, count(*) AS running FROM graceful_tasks \
     WHERE state = 'running' AND queue = ANY($1) GROUP BY queue, lane";

/// The lines of all queues that are open, in each from after a place (`$4`: the queue, `$5`: the lane, `$6`: the rank) or from the
/// beginning, where `$7`; and in how many milliseconds the first task of each is due that we can run.
pub(super) const LINES: &str = concat!(
    "WITH RECURSIVE asked AS ( \
        SELECT q.name, coalesce(a.lane, '') AS lane, coalesce(a.rank, -100000) AS rank FROM graceful_queues q \
        LEFT JOIN UNNEST($4::text[], $5::text[], $6::integer[]) AS a (name, lane, rank) ON a.name = q.name \
        WHERE (a.name IS NOT NULL OR $7) AND ",
    open!("$3"),
    " ), lines (queue, lane, rank, place) AS ( \
        SELECT asked.name, first.lane, first.rank, 1 FROM asked CROSS JOIN LATERAL ( \
            SELECT t.lane, ",
    rank!(),
    " AS rank FROM graceful_tasks t WHERE t.state = 'queued' AND t.queue = asked.name AND (t.lane, ",
    rank!(),
    ") > (asked.lane, asked.rank) ORDER BY t.lane, ",
    rank!(),
    " LIMIT 1) first \
        UNION ALL \
        SELECT lines.queue, next.lane, next.rank, place + 1 FROM lines CROSS JOIN LATERAL ( \
            SELECT t.lane, ",
    rank!(),
    " AS rank FROM graceful_tasks t WHERE t.state = 'queued' AND t.queue = lines.queue AND (t.lane, ",
    rank!(),
    ") > (lines.lane, lines.rank) ORDER BY t.lane, ",
    rank!(),
    " LIMIT 1) next WHERE place < ",
    most!(),
    " ) SELECT lines.queue, lines.lane, lines.rank, first.due - ",
    now!(),
    " AS wait FROM lines LEFT JOIN LATERAL ( \
        SELECT t.due FROM graceful_tasks t WHERE t.state = 'queued' AND t.queue = lines.queue AND t.lane = lines.lane AND ",
    rank!(),
    " = lines.rank AND t.kind = ANY($1) AND t.interrupted < $2 ORDER BY t.due, t.id LIMIT 1) first ON true \
     ORDER BY lines.queue, lines.lane, lines.rank"
);

/// Leases what `$line` found: `id`, `since` when it was due, and `place`, which share it is of.
macro_rules! lease {
    ($($line:expr),+) => {
        concat!(
            $($line),+,
            ", leased AS ( UPDATE graceful_tasks t SET state = 'running', attempt = t.attempt + 1, owner = $3, started = ",
            now!(),
            ", lease_until = ",
            clock!(),
            // As an array: by it the tasks are looked up one by one, and never read through, however many are guessed to be due.
            " + $4, progress = NULL WHERE t.id = ANY(ARRAY(SELECT id FROM line)) \
             RETURNING t.id, t.attempt, t.kind, t.input, t.client_id, t.timeout, t.max_attempts, t.created, t.priority, \
             t.due, t.started, t.trace, t.queue, t.lane ) \
             SELECT leased.*, leased.started - line.since AS waited, line.place FROM leased JOIN line USING (id)"
        )
    };
}

/// Of a kind that we can run (`$1`), and its time has come.
macro_rules! is_due {
    () => {
        concat!("t.state = 'queued' AND t.due <= ", now!(), " AND t.kind = ANY($1)")
    };
}

/// Of each line (`$5`: queues, `$6`: lanes, `$7`: ranks) so many (`$8`) of those that run beside others. Whoever else claims at this
/// moment skips these, and takes the next.
pub(super) const LEASE_ORDINARY: &str = lease!(
    "WITH line AS MATERIALIZED ( \
        SELECT due.id, due.since, asked.place FROM UNNEST($5::text[], $6::text[], $7::integer[], $8::bigint[]) \
            WITH ORDINALITY AS asked (queue, lane, rank, most, place) \
        JOIN graceful_queues q ON q.name = asked.queue AND NOT q.paused \
        CROSS JOIN LATERAL ( \
            SELECT t.id, coalesce(greatest(t.started, t.due), t.due) AS since FROM graceful_tasks t WHERE ",
    is_due!(),
    " AND t.interrupted < $2 AND t.queue = asked.queue AND t.lane = asked.lane AND ",
    rank!(),
    " = asked.rank ORDER BY t.due, t.id LIMIT asked.most FOR UPDATE SKIP LOCKED) due )"
);

/// Those that have to run alone, are due, and are in a queue that lets them: it is open (`$held`), and the key has a place (`$full` are
/// queues, the next parameter their keys, that have none).
macro_rules! suspects {
    ($held:literal, $queues:literal, $lanes:literal) => {
        concat!(
            " FROM graceful_tasks t JOIN graceful_queues q ON q.name = t.queue WHERE ",
            is_due!(),
            " AND t.interrupted > 0 AND t.interrupted >= $2 AND ",
            open!($held),
            " AND NOT EXISTS (SELECT FROM UNNEST(",
            $queues,
            "::text[], ",
            $lanes,
            "::text[]) AS taken (queue, lane) WHERE taken.queue = t.queue AND taken.lane = t.lane)"
        )
    };
}

/// One of those that run alone.
pub(super) const LEASE_SUSPECT: &str = lease!(
    "WITH line AS MATERIALIZED ( SELECT t.id, coalesce(greatest(t.started, t.due), t.due) AS since, 1::bigint AS place",
    suspects!("$5", "$6", "$7"),
    " ORDER BY t.due, t.id LIMIT 1 FOR UPDATE OF t SKIP LOCKED )"
);

/// Whether one is due that has to run alone.
pub(super) const SUSPECT_IS_DUE: &str = concat!("SELECT EXISTS (SELECT", suspects!("$3", "$4", "$5"), ")");

/// What is left in the buckets of these queues (`$1`: names, `$2`: starts), as of now (`$3`).
pub(super) const FILL: &str = "UPDATE graceful_queues q SET tokens = left_over.tokens, filled = $3 \
     FROM UNNEST($1::text[], $2::double precision[]) AS left_over (name, tokens) WHERE q.name = left_over.name";

#[cfg(test)]
mod on_postgres {
    use graceful_postgres::Postgres;

    use super::*;
    use crate::postgres::open;
    use crate::task::Millis;
    use crate::tests::settings;

    /// Pages that the statement reads, and its plan.
    fn read(server: &Postgres, database: &str, mode: &str, statement: &str, values: &str) -> (u64, String) {
        let plan = server
            .sql(
                database,
                &format!(
                    "SET plan_cache_mode = {mode}; PREPARE asked AS {statement}; BEGIN; \
                     EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE asked({values}); ROLLBACK"
                ),
            )
            .unwrap();
        // The first line that counts pages is the whole statement's.
        let pages = plan.lines().find_map(|line| line.trim().strip_prefix("Buffers: shared "));
        let number = |word: &str| -> u64 {
            let found = pages.unwrap().split(' ').find_map(|part| part.strip_prefix(word));
            found.map_or(0, |number| number.parse().unwrap())
        };
        (number("hit=") + number("read="), plan)
    }

    #[tokio::test]
    async fn a_claim_reads_none_of_those_that_wait_for_their_time() {
        let server = Postgres::start().unwrap();
        let database = server.create_database().unwrap();
        drop(open(&server.url(&database), settings()).await.unwrap());
        // 40,000 that wait, in ten priorities, and twenty that are due in the lowest of them.
        let submitted = |ids: &str, due: &str| {
            format!(
                "INSERT INTO graceful_tasks (id, state, priority, attempt, max_attempts, granted, created, due, keep, kind, input) \
                 SELECT lpad(to_hex(number), 32, '0')::uuid, 'queued', number % 10, 0, 1, 1, 0, {due}, 0, 'sleep', '{{}}' \
                 FROM generate_series({ids}) AS number;"
            )
        };
        let far = format!("{} + number", Millis::MAX / 2);
        server.sql(&database, &submitted("1, 40000", &far)).unwrap();
        server.sql(&database, &submitted("40010, 40200, 10", "number")).unwrap();
        for analyzed in [false, true] {
            if analyzed {
                server.sql(&database, "ANALYZE graceful_tasks").unwrap();
            }
            // As a connection's first few, and as all after them.
            for mode in ["force_custom_plan", "force_generic_plan"] {
                for most in [1, 30] {
                    let values = format!(
                        "'{{sleep,mail}}', 3, 'me', 6000, '{{default}}', '{{\"\"}}', '{{0}}', '{{{most}}}'"
                    );
                    let (pages, plan) = read(&server, &database, mode, LEASE_ORDINARY, &values);
                    assert!(plan.contains("using graceful_tasks_queues"), "{plan}");
                    assert!(!plan.contains("Seq Scan on graceful_tasks"), "{plan}");
                    // Of the index alone, all that wait fill 300.
                    assert!(pages < 150 + 10 * most, "{pages} pages: {plan}");
                }
                let values = "'{sleep,mail}', 3, '{}', '{}', '{}', '{}', true";
                let (pages, plan) = read(&server, &database, mode, LINES, values);
                assert!(pages < 150, "{pages} pages: {plan}");
            }
        }
    }
}
