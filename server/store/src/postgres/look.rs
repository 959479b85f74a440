//! What can be seen of the queue: tasks and events.

use futures::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder, Row, query};
use uuid::Uuid;

use super::attempts;
use super::database::{CALL_TIMEOUT, Database};
use super::record::{count, event, record, record_columns, text};
use crate::error::StoreError;
use crate::event::Events;
use crate::page::{Filling, LOOKED_THROUGH};
use crate::task::{Cursor, Filter, Found, Page, State, TaskRecord};

impl Database {
    pub(super) async fn get(&self, id: Uuid) -> Result<Option<TaskRecord>, StoreError> {
        self.within(CALL_TIMEOUT, async {
            let mut lane = self.desk.lane().await?;
            let found =
                query(concat!("SELECT ", record_columns!(), ", owner FROM graceful_tasks WHERE id = $1"));
            let found = found.bind(id).fetch_optional(&mut *lane).await?;
            let mut task = found.as_ref().map(record).transpose()?;
            if let (Some(task), Some(row)) = (&mut task, &found) {
                task.attempts = Some(attempts::read(&mut lane, task, row.try_get("owner")?).await?);
            }
            lane.keep();
            Ok(task)
        })
        .await
    }

    /// `few_live`: the tasks that wait or run are few enough to be sorted.
    pub(super) async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        few_live: bool,
    ) -> Result<Page, StoreError> {
        self.within(CALL_TIMEOUT, async {
            let mut lane = self.lists.lane().await?;
            let page = page(&mut lane, filter, after, limit, few_live).await?;
            lane.keep();
            Ok(page)
        })
        .await
    }

    /// The ids of those that [`Self::list`] would tell of.
    pub(super) async fn find(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
        few_live: bool,
    ) -> Result<Found, StoreError> {
        self.within(CALL_TIMEOUT, async {
            let mut lane = self.lists.lane().await?;
            let mut list = look_through("id", filter, after, limit, few_live);
            let mut found = Found::default();
            for row in list.build().fetch_all(&mut *lane).await? {
                found.next = row.try_get("looked_to")?;
                if let Some(id) = row.try_get::<Option<Uuid>, _>("id")? {
                    if found.ids.len() >= limit {
                        found.next = found.ids.last().copied();
                        break;
                    }
                    found.ids.push(id);
                }
            }
            lane.keep();
            Ok(found)
        })
        .await
    }

    pub(super) async fn events(&self, after: u64, limit: usize) -> Result<Events, StoreError> {
        self.within(CALL_TIMEOUT, async {
            let mut lane = self.desk.lane().await?;
            let events = events(&mut lane, after, limit).await?;
            lane.keep();
            Ok(events)
        })
        .await
    }
}

async fn page(
    connection: &mut PgConnection,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
    few_live: bool,
) -> sqlx::Result<Page> {
    let mut filling = Filling::new(limit);
    let mut end = None;
    let mut list = look_through(record_columns!(), filter, after, limit, few_live);
    let mut rows = list.build().fetch(connection);
    while let Some(row) = rows.try_next().await? {
        end = row.try_get::<Option<Uuid>, _>("looked_to")?;
        if row.try_get::<Option<Uuid>, _>("id")?.is_some() && !filling.take(record(&row)?) {
            break;
        }
    }
    Ok(filling.page(end))
}

/// The tasks that match, among the newest below `after`, [`LOOKED_THROUGH`] at most; and `looked_to`, the last of these, if there
/// are so many. One statement, so that both are of the same moment.
fn look_through(
    columns: &str,
    filter: &Filter,
    after: Option<Cursor>,
    limit: usize,
    few_live: bool,
) -> QueryBuilder<Postgres> {
    let Filter { states, kind, client_id, queue } = filter;
    // One more says whether there is another page.
    let most = limit.saturating_add(1).min(i64::MAX as usize) as i64;
    let mut list = QueryBuilder::new("WITH hits AS MATERIALIZED (SELECT id FROM (");
    push_window(&mut list, filter, after, few_live);
    list.push(format!(" LIMIT {LOOKED_THROUGH}) AS newest WHERE true"));
    if !states.is_empty() {
        let words: Vec<_> = states.iter().copied().map(State::as_str).collect();
        list.push(" AND state = ANY(").push_bind(words).push(")");
    }
    if let Some(kind) = kind {
        list.push(" AND kind = ").push_bind(text(kind.clone()));
    }
    if let Some(client) = client_id {
        list.push(" AND client_id = ").push_bind(text(client.clone()));
    }
    if let Some(queue) = queue {
        list.push(" AND queue = ").push_bind(text(queue.clone()));
    }
    list.push(" ORDER BY id DESC LIMIT ").push_bind(most);
    // A page that is full ends at its last task.
    list.push("), lowest AS (SELECT id AS looked_to FROM (");
    push_window(&mut list, filter, after, few_live);
    list.push(format!(
        " OFFSET {} LIMIT 1) AS newest WHERE (SELECT count(*) FROM hits) < ",
        LOOKED_THROUGH - 1
    ));
    list.push_bind(most);
    list.push(") SELECT ").push(columns);
    list.push(", looked_to FROM hits JOIN graceful_tasks USING (id) FULL JOIN lowest ON false ORDER BY id DESC NULLS LAST");
    list
}

/// What is looked through, the newest first: by an index that has the order, or sorted where they are few.
fn push_window(list: &mut QueryBuilder<Postgres>, filter: &Filter, after: Option<Cursor>, few_live: bool) {
    let Filter { states, kind: _, client_id, queue: _ } = filter;
    let live = !states.is_empty() && states.iter().all(|state| !state.ended());
    let sorted = live && few_live && client_id.is_none();
    list.push("SELECT id, state, kind, client_id, queue FROM ");
    if sorted {
        // Read by state and then sorted: by id they would be looked for among all others.
        list.push("(SELECT * FROM graceful_tasks WHERE state = 'queued' OR state = 'running' OFFSET 0) AS live WHERE true");
    } else {
        list.push("graceful_tasks WHERE true");
    }
    match (states.as_slice(), client_id) {
        (_, Some(client)) => {
            list.push(" AND client_id = ").push_bind(text(client.clone()));
        }
        // A literal, so that the index of that state alone can be used.
        ([one @ (State::Running | State::Dead | State::Cancelled)], None) => {
            list.push(" AND state = '").push(one.as_str()).push("'");
        }
        _ => {}
    }
    if let Some(after) = after {
        list.push(" AND id < ").push_bind(after);
    }
    list.push(" ORDER BY id DESC");
}

/// One statement, so that the oldest and the events are of the same moment.
async fn events(connection: &mut PgConnection, after: u64, limit: usize) -> sqlx::Result<Events> {
    let rows = query(
        "SELECT coalesce((SELECT number FROM graceful_events ORDER BY number LIMIT 1), log.head + 1) AS oldest, e.* \
         FROM graceful_log log LEFT JOIN LATERAL ( \
            SELECT number, task_id, kind, client_id, state, attempt, error, at FROM graceful_events \
            WHERE number > $1 ORDER BY number LIMIT $2 \
         ) e ON true ORDER BY e.number",
    )
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let oldest = rows.first().map_or(Ok(1), |row| count(row, "oldest"))?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.try_get::<Option<i64>, _>("number")?.is_some() {
            events.push(event(row)?);
        }
    }
    Ok(Events { events, oldest })
}

#[cfg(test)]
mod on_postgres {
    use std::collections::HashSet;

    use graceful_postgres::Postgres;
    use tokio::time::timeout;

    use super::*;
    use crate::TaskStore;
    use crate::postgres::database::LIST_CONNECTIONS;
    use crate::postgres::open;
    use crate::tests::{LONG, all_but_lists, settings};

    #[tokio::test]
    async fn lists_that_take_long_keep_nobody_from_looking_cancelling_or_submitting() {
        let server = Postgres::start().unwrap();
        let url = server.url(&server.create_database().unwrap());
        let store = open(&url, settings()).await.unwrap();
        let mut lists = Vec::new();
        let mut held = HashSet::new();
        for _ in 0..LIST_CONNECTIONS {
            let mut lane = store.database.lists.lane().await.unwrap();
            let asked = query("SELECT pg_backend_pid(), current_setting('statement_timeout')");
            let row = asked.fetch_one(&mut *lane).await.unwrap();
            held.insert(row.get::<i32, _>(0));
            assert_eq!(row.get::<&str, _>(1), "5s", "the server gives up what the caller has given up");
            lists.push(lane);
        }
        assert_eq!(held.len(), LIST_CONNECTIONS);
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.list(&Filter::default(), None, 1).await }
        });
        timeout(LONG, all_but_lists(&*store)).await.expect("somebody waits for a list");
        assert!(!waiting.is_finished(), "the list waits for those before it");
        drop(lists);
        assert_eq!(waiting.await.unwrap().unwrap().tasks.len(), 1);
    }
}
