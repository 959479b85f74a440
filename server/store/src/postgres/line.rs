//! The line of tasks that wait: the statements that look at it and claim from it.
//!
//! Tasks wait in the order of their priority, and within one in the order of their time. There may be hundreds of thousands whose time has not
//! come, and claims come all the time: so none of these reads them.

use super::record::{clock, now};

/// Leases what `$line` found: `id`, and `since` when it was due.
macro_rules! lease {
    ($($line:expr),+) => {
        concat!(
            $($line),+,
            " UPDATE graceful_tasks t SET state = 'running', attempt = t.attempt + 1, owner = $3, started = ",
            now!(),
            ", lease_until = ",
            clock!(),
            // The ids once more, as an array: by it the tasks are looked up and never read through, however many are guessed to be due.
            " + $4, progress = NULL FROM line WHERE t.id = line.id AND t.id = ANY(ARRAY(SELECT id FROM line)) \
             RETURNING t.id, t.attempt, t.kind, t.input, t.client_id, t.timeout, t.max_attempts, t.created, t.priority, \
             t.due, t.started - line.since AS waited, t.trace"
        )
    };
}

/// Of a kind that we can run (`$1`), and its time has come.
macro_rules! is_due {
    () => {
        concat!("state = 'queued' AND due <= ", now!(), " AND kind = ANY($1)")
    };
}

/// What is due of one line, locked.
macro_rules! due {
    ($among:expr) => {
        concat!(
            "SELECT id, coalesce(greatest(started, due), due) AS since FROM graceful_tasks WHERE ",
            is_due!(),
            " AND ",
            $among,
            " LIMIT $2 FOR UPDATE SKIP LOCKED"
        )
    };
}

/// Priorities that are asked for one by one. Clients choose them, and may choose each another: below the last of these all that
/// waits is read through.
macro_rules! most {
    () => {
        "100"
    };
}

/// The priorities in which tasks wait, the highest first, and their places. Each is found by one step down the index of the line, which
/// has a priority's tasks in the order of their times: so what is due is read, and none of those that wait for their time.
macro_rules! priorities {
    () => {
        concat!(
            "WITH RECURSIVE priorities (priority, place) AS ( \
            (SELECT priority, 1 FROM graceful_tasks WHERE state = 'queued' ORDER BY priority DESC LIMIT 1) \
            UNION ALL \
            SELECT (SELECT lower.priority FROM graceful_tasks lower WHERE lower.state = 'queued' \
                AND lower.priority < priorities.priority ORDER BY lower.priority DESC LIMIT 1), place + 1 \
            FROM priorities WHERE priority IS NOT NULL AND place < ",
            most!(),
            " )"
        )
    };
}

/// Up to `$2` of those that run beside others. Later parts are read only where the ones before them have too few.
pub(super) const LEASE_ORDINARY: &str = lease!(
    priorities!(),
    ", line AS MATERIALIZED ( SELECT id, since FROM ( \
        SELECT due.* FROM priorities CROSS JOIN LATERAL (",
    due!("interrupted < $5 AND priority = priorities.priority ORDER BY due, id"),
    ") due UNION ALL SELECT below.* FROM priorities CROSS JOIN LATERAL (",
    due!("interrupted < $5 AND priority < priorities.priority ORDER BY priority DESC, due, id"),
    ") below WHERE place = ",
    most!(),
    ") line LIMIT $2 )"
);

/// One of those that run alone.
pub(super) const LEASE_SUSPECT: &str = lease!(
    "WITH line AS MATERIALIZED (",
    due!("interrupted > 0 AND interrupted >= $5 ORDER BY due, id"),
    ")"
);

/// Whether one is due that has to run alone.
pub(super) const SUSPECT_IS_DUE: &str = concat!(
    "SELECT EXISTS (SELECT FROM graceful_tasks WHERE ",
    is_due!(),
    " AND interrupted > 0 AND interrupted >= $2)"
);

/// How long until the first of those is due that run beside others.
pub(super) const UNTIL_DUE: &str = concat!(
    priorities!(),
    " SELECT min(due) - ",
    now!(),
    " FROM ( \
        SELECT due FROM priorities CROSS JOIN LATERAL ( \
            SELECT due FROM graceful_tasks WHERE state = 'queued' AND kind = ANY($1) AND interrupted < $2 \
            AND priority = priorities.priority ORDER BY due, id LIMIT 1) first \
        UNION ALL \
        SELECT below.due FROM priorities CROSS JOIN LATERAL ( \
            SELECT min(due) AS due FROM graceful_tasks WHERE state = 'queued' AND kind = ANY($1) AND interrupted < $2 \
            AND priority < priorities.priority) below WHERE place = ",
    most!(),
    ") waiting"
);

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
                    let values = format!("'{{sleep,mail}}', {most}, 'me', 6000, 3");
                    let (pages, plan) = read(&server, &database, mode, LEASE_ORDINARY, &values);
                    assert!(plan.contains("using graceful_tasks_line"), "{plan}");
                    assert!(!plan.contains("Seq Scan on graceful_tasks"), "{plan}");
                    // Of the index alone, all that wait fill 300.
                    assert!(pages < 150 + 10 * most, "{pages} pages: {plan}");
                }
                let (pages, plan) = read(&server, &database, mode, UNTIL_DUE, "'{sleep,mail}', 3");
                assert!(pages < 100, "{pages} pages: {plan}");
            }
        }
    }
}
