//! The attempts at a task: noted by the statement that lets another follow, read with the task.

use sqlx::postgres::PgConnection;
use sqlx::{Row, query};

use super::record::number;
use crate::attempts::{complete, pod};
use crate::task::{Attempt, TaskRecord};

/// The part of a WITH that notes attempts: `$what` selects task, attempt, start, end, owner and error. One that was given back has
/// no start, and never was. (500 letters of an error, 20 attempts: as `crate::attempts` says.)
macro_rules! note {
    ($($what:expr),+ $(,)?) => {
        concat!(
            "noted AS ( INSERT INTO graceful_attempts (task_id, attempt, started, ended, owner, error) \
             SELECT task_id, attempt, started, ended, owner, left(error, 500) FROM ( SELECT ",
            $($what),+,
            " ) AS over (task_id, attempt, started, ended, owner, error) WHERE started IS NOT NULL ON CONFLICT DO NOTHING )"
        )
    };
}

/// The part of a WITH that forgets the oldest attempts of the tasks in `$among` (id, attempt).
macro_rules! trim {
    ($among:expr) => {
        concat!(
            "trimmed AS ( DELETE FROM graceful_attempts a USING ",
            $among,
            " b WHERE a.task_id = b.id AND a.attempt <= b.attempt - 20 )"
        )
    };
}

pub(super) use {note, trim};

/// The attempts at this task that are remembered. `owner` is who ran it last.
pub(super) async fn read(
    connection: &mut PgConnection,
    task: &TaskRecord,
    owner: Option<String>,
) -> sqlx::Result<Vec<Attempt>> {
    if task.attempt == 0 {
        return Ok(Vec::new());
    }
    let rows = query(
        "SELECT attempt, owner, started, ended, error FROM graceful_attempts WHERE task_id = $1 AND attempt <= $2 \
         ORDER BY attempt",
    );
    // One that ended after the task was read is not there yet.
    let rows = rows.bind(task.id).bind(i32::from(task.attempt)).fetch_all(connection).await?;
    let noted = rows.iter().map(|row| {
        Ok(Attempt {
            number: number(row, "attempt")?,
            pod: row.try_get::<Option<String>, _>("owner")?.map(|owner| pod(&owner).to_owned()),
            started: row.try_get("started")?,
            ended: row.try_get("ended")?,
            error: row.try_get("error")?,
        })
    });
    let noted = noted.collect::<sqlx::Result<_>>()?;
    Ok(complete(noted, task, owner.map(|owner| pod(&owner).to_owned())))
}

#[cfg(test)]
mod tests {
    use crate::attempts::{LONGEST_ERROR, MOST};

    #[test]
    fn the_statements_bounds_are_those_of_the_module() {
        assert!(note!("").contains(&format!("left(error, {LONGEST_ERROR})")));
        assert!(trim!("x").contains(&format!("b.attempt - {MOST} ")));
    }
}
