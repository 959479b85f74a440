//! What can be seen of the queue: tasks and events.

use futures::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder, Row, query};
use uuid::Uuid;

use super::database::{CALL_TIMEOUT, Database};
use super::record::{count, event, record, record_columns, text};
use crate::error::StoreError;
use crate::event::Events;
use crate::page::Filling;
use crate::task::{Cursor, Filter, Page, State, TaskRecord};

impl Database {
    pub(super) async fn get(&self, id: Uuid) -> Result<Option<TaskRecord>, StoreError> {
        self.within(CALL_TIMEOUT, async {
            let mut lane = self.desk.lane().await?;
            let found = query(concat!("SELECT ", record_columns!(), " FROM graceful_tasks WHERE id = $1"));
            let found = found.bind(id).fetch_optional(&mut *lane).await?;
            lane.keep();
            found.as_ref().map(record).transpose()
        })
        .await
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.within(CALL_TIMEOUT, async {
            let mut lane = self.desk.lane().await?;
            let page = page(&mut lane, filter, after, limit).await?;
            lane.keep();
            Ok(page)
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
) -> sqlx::Result<Page> {
    let Filter { states, kind, client_id } = filter;
    let mut list = QueryBuilder::<Postgres>::new(concat!(
        "SELECT ",
        record_columns!(),
        " FROM graceful_tasks WHERE true"
    ));
    match states.as_slice() {
        [] => {}
        // A literal, so that the index of that state alone can be used.
        [one] => {
            list.push(" AND state = '").push(one.as_str()).push("'");
        }
        many => {
            let words: Vec<_> = many.iter().copied().map(State::as_str).collect();
            list.push(" AND state = ANY(").push_bind(words).push(")");
        }
    }
    if let Some(kind) = kind {
        list.push(" AND kind = ").push_bind(text(kind.clone()));
    }
    if let Some(client) = client_id {
        list.push(" AND client_id = ").push_bind(text(client.clone()));
    }
    if let Some(after) = after {
        list.push(" AND id < ").push_bind(after);
    }
    // One more says whether there is another page.
    let rows = limit.saturating_add(1).min(i64::MAX as usize) as i64;
    list.push(" ORDER BY id DESC LIMIT ").push_bind(rows);
    let mut filling = Filling::new(limit);
    let mut rows = list.build().fetch(connection);
    while let Some(row) = rows.try_next().await? {
        if !filling.take(record(&row)?) {
            break;
        }
    }
    Ok(filling.page())
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
