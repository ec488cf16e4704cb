//! The queries about template builds, and `BuildStore` over them.

/// Stamps `impl BuildStore` for one backend, beside `stamp_store`, whose arguments it takes.
///
/// - `rows`: the module with the rows that `stamp_build_rows` stamps;
/// - `queries`: the module that `stamp_store` fills.
macro_rules! stamp_builds {
    (
        store: $store:ty,
        connection: $connection:ty,
        backend: $backend:ty,
        schema: $schema:path,
        rows: $rows:path,
        queries: $queries:path $(,)?
    ) => {
        use async_trait::async_trait;
        use bytes::Bytes;
        use diesel::{
            OptionalExtension,
            dsl::{exists, not},
            prelude::*,
        };
        use diesel_async::RunQueryDsl;
        use sandbox_core::{
            build::{
                BuildFilter, BuildPage, BuildPageRequest, BuildRecord, BuildStatus, BuildStep,
                LogCursor, LogEntry,
            },
            clock::Timestamp,
            id::{BuildId, TeamId},
            sandbox::PageRequest,
            store::{BuildStore, BuildWrite, StoreError},
        };
        use $queries as queries;
        use $rows as rows;
        use $schema as schema;

        use crate::{
            change::{BuildChange, Change, ContextBytes, Failure},
            columns::{DbTime, DbUuid},
            stamp::{LogRoom, SIZES_PER_QUERY, from_column, length, to_column},
        };
        use rows::{BuildRow, LogRow, NewLogRow, StepRow};
        use schema::{
            template_build_contexts as contexts, template_build_log as log,
            template_build_steps as steps, template_builds as builds,
        };

        /// Applies a change of builds, inside a transaction. Returns how many records went, for
        /// changes that remove any number.
        pub(super) async fn apply_build(
            conn: &mut $connection,
            change: &BuildChange,
        ) -> Result<u64, Failure> {
            match change {
                BuildChange::Insert(write) => {
                    diesel::insert_into(builds::table)
                        .values(BuildRow::of(&write.record)?)
                        .execute(conn)
                        .await?;
                    beside_build(conn, write).await?;
                    Ok(0)
                }
                BuildChange::Update(write) => {
                    let before = write.record.version.checked_sub(1);
                    let before = before.ok_or(StoreError::Conflict)?;
                    let there = builds::table
                        .find(DbUuid(write.record.id.uuid()))
                        .filter(builds::version.eq(to_column::<_, i64>("version", before)?));
                    let written = diesel::update(there)
                        .set(BuildRow::of(&write.record)?)
                        .execute(conn)
                        .await?;
                    if written == 0 {
                        return Err(StoreError::Conflict.into());
                    }
                    beside_build(conn, write).await?;
                    Ok(0)
                }
                BuildChange::Log { id, entries } => {
                    for entry in entries {
                        diesel::insert_into(log::table)
                            .values(NewLogRow::of(*id, entry)?)
                            .on_conflict((log::build_id, log::cursor))
                            .do_nothing()
                            .execute(conn)
                            .await?;
                    }
                    Ok(0)
                }
                BuildChange::PutContext { name, data, at } => {
                    put_context(conn, name, data, *at).await?;
                    Ok(0)
                }
                BuildChange::RemoveContexts { kept_before } => {
                    let [pending, running] = [BuildStatus::Pending, BuildStatus::Running];
                    let wanted = builds::table
                        .filter(builds::context.eq(contexts::name.nullable()))
                        .filter(builds::status.eq_any([pending.as_str(), running.as_str()]));
                    let old = contexts::table
                        .filter(contexts::kept_at.lt(DbTime(*kept_before)))
                        .filter(not(exists(wanted)));
                    Ok(diesel::delete(old).execute(conn).await? as u64)
                }
                BuildChange::RemoveBuilds { finished_before } => {
                    // Steps and logs go with them.
                    let old =
                        builds::table.filter(builds::finished_at.lt(DbTime(*finished_before)));
                    Ok(diesel::delete(old).execute(conn).await? as u64)
                }
            }
        }

        /// What goes into the same transaction as a build.
        async fn beside_build(conn: &mut $connection, write: &BuildWrite) -> Result<(), Failure> {
            for step in &write.steps {
                diesel::insert_into(steps::table)
                    .values(StepRow::of(step)?)
                    .on_conflict((steps::build_id, steps::attempt, steps::step))
                    .do_update()
                    .set(StepRow::of(step)?)
                    .execute(conn)
                    .await?;
            }
            for template in &write.templates {
                queries::apply_template(conn, template).await?;
            }
            queries::beside(conn, &[], write.audit.as_ref()).await
        }

        async fn put_context(
            conn: &mut $connection,
            name: &str,
            data: &ContextBytes,
            at: Timestamp,
        ) -> Result<(), Failure> {
            // What is there already is not sent again.
            let kept = diesel::update(contexts::table.find(name))
                .set(contexts::kept_at.eq(DbTime(at)))
                .execute(conn)
                .await?;
            if kept == 0 {
                diesel::insert_into(contexts::table)
                    .values((
                        contexts::name.eq(name),
                        contexts::data.eq(data.as_slice()),
                        contexts::kept_at.eq(DbTime(at)),
                    ))
                    .on_conflict(contexts::name)
                    .do_update()
                    .set(contexts::kept_at.eq(DbTime(at)))
                    .execute(conn)
                    .await?;
            }
            Ok(())
        }

        impl $store {
            /// The last of the pieces behind `after` that fit in `max_bytes`, if there are any. Looks
            /// at sizes only.
            async fn last_that_fits(
                &self,
                id: BuildId,
                after: i64,
                max_bytes: u32,
            ) -> Result<Option<i64>, StoreError> {
                let mut room = LogRoom::of(max_bytes);
                let mut last = None;
                loop {
                    let behind = last.unwrap_or(after);
                    let sizes = self.read(|conn| {
                        let query = log::table
                            .filter(log::build_id.eq(DbUuid(id.uuid())))
                            .filter(log::cursor.gt(behind))
                            .order(log::cursor.asc())
                            .limit(SIZES_PER_QUERY as i64)
                            .select((log::cursor, length(log::data)));
                        Box::pin(async move { query.load(conn).await })
                    });
                    let sizes: Vec<(i64, i32)> = sizes.await?;
                    for (cursor, size) in &sizes {
                        if !room.take(from_column("data", *size)?) {
                            return Ok(last);
                        }
                        last = Some(*cursor);
                    }
                    if sizes.len() < SIZES_PER_QUERY {
                        return Ok(last);
                    }
                }
            }
        }

        #[async_trait]
        impl BuildStore for $store {
            async fn insert_build(&self, write: BuildWrite) -> Result<(), StoreError> {
                let change = BuildChange::Insert(write);
                self.commit(Change::Build(change)).await.map(drop)
            }

            async fn update_build(&self, write: BuildWrite) -> Result<(), StoreError> {
                let change = BuildChange::Update(write);
                self.commit(Change::Build(change)).await.map(drop)
            }

            async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = builds::table
                        .find(DbUuid(id.uuid()))
                        .select(BuildRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(BuildRow::record).transpose()
            }

            async fn build_by_idempotency_key(
                &self,
                team: TeamId,
                key: &str,
            ) -> Result<Option<BuildRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = builds::table
                        .filter(builds::team_id.eq(DbUuid(team.uuid())))
                        .filter(builds::idempotency_key.eq(key.to_owned()))
                        .select(BuildRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(BuildRow::record).transpose()
            }

            async fn list_builds(
                &self,
                filter: &BuildFilter,
                page: BuildPageRequest,
            ) -> Result<BuildPage, StoreError> {
                let limit = page.limit.clamp(1, PageRequest::LIMIT_MAX);
                let rows = self.read(|conn| {
                    let mut query = builds::table
                        .select(BuildRow::as_select())
                        .limit(i64::from(limit) + 1)
                        .into_boxed::<$backend>();
                    let after = page.after.map(|after| DbUuid(after.uuid()));
                    query = if filter.newest_first {
                        query.order(builds::id.desc())
                    } else {
                        query.order(builds::id.asc())
                    };
                    query = match after {
                        None => query,
                        Some(after) if filter.newest_first => query.filter(builds::id.lt(after)),
                        Some(after) => query.filter(builds::id.gt(after)),
                    };
                    // One status is asked for so that its index gives the order, too.
                    query = match filter.statuses[..] {
                        [] => query,
                        [status] => query.filter(builds::status.eq(status.as_str())),
                        ref statuses => {
                            let statuses = statuses.iter().map(|status| status.as_str());
                            query.filter(builds::status.eq_any(statuses.collect::<Vec<_>>()))
                        }
                    };
                    if let Some(name) = &filter.name {
                        query = query.filter(builds::name.eq(name.as_str().to_owned()));
                    }
                    if let Some(team) = filter.team_id {
                        query = query.filter(builds::team_id.eq(DbUuid(team.uuid())));
                    }
                    Box::pin(async move { query.load(conn).await })
                });
                let mut rows: Vec<BuildRow> = rows.await?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let items: Vec<BuildRecord> = rows
                    .into_iter()
                    .map(BuildRow::record)
                    .collect::<Result<_, _>>()?;
                let next = items.last().filter(|_| more).map(|last| last.id);
                Ok(BuildPage { items, next })
            }

            async fn build_steps(
                &self,
                id: BuildId,
                attempt: u32,
            ) -> Result<Vec<BuildStep>, StoreError> {
                let rows = self.read(|conn| {
                    let query = steps::table
                        .filter(steps::build_id.eq(DbUuid(id.uuid())))
                        .filter(steps::attempt.eq(i64::from(attempt)))
                        .order(steps::step.asc())
                        .select(StepRow::as_select());
                    Box::pin(async move { query.load(conn).await })
                });
                let rows: Vec<StepRow> = rows.await?;
                rows.into_iter().map(StepRow::step).collect()
            }

            async fn append_build_log(
                &self,
                id: BuildId,
                entries: Vec<LogEntry>,
            ) -> Result<(), StoreError> {
                let change = BuildChange::Log { id, entries };
                self.commit(Change::Build(change)).await.map(drop)
            }

            async fn build_log(
                &self,
                id: BuildId,
                after: LogCursor,
                max_bytes: u32,
            ) -> Result<Vec<LogEntry>, StoreError> {
                // No piece has a cursor that a column can't hold, so none is behind such a one.
                let after = i64::try_from(after.0).unwrap_or(i64::MAX);
                let Some(last) = self.last_that_fits(id, after, max_bytes).await? else {
                    return Ok(Vec::new());
                };
                let rows = self.read(|conn| {
                    let query = log::table
                        .filter(log::build_id.eq(DbUuid(id.uuid())))
                        .filter(log::cursor.gt(after))
                        .filter(log::cursor.le(last))
                        .order(log::cursor.asc())
                        .select(LogRow::as_select());
                    Box::pin(async move { query.load(conn).await })
                });
                let rows: Vec<LogRow> = rows.await?;
                let mut entries: Vec<LogEntry> = rows
                    .into_iter()
                    .map(LogRow::entry)
                    .collect::<Result<_, _>>()?;
                // Pieces may have come between, since their sizes were looked at.
                let mut room = LogRoom::of(max_bytes);
                let fit = entries
                    .iter()
                    .take_while(|entry| room.take(entry.data.len() as u64))
                    .count();
                entries.truncate(fit);
                Ok(entries)
            }

            async fn put_context(
                &self,
                name: &str,
                data: Bytes,
                at: Timestamp,
            ) -> Result<(), StoreError> {
                let change = BuildChange::PutContext {
                    name: name.to_owned(),
                    data: ContextBytes(data),
                    at,
                };
                self.commit(Change::Build(change)).await.map(drop)
            }

            async fn context(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
                let data = self.read(|conn| {
                    let query = contexts::table.find(name.to_owned()).select(contexts::data);
                    Box::pin(async move { query.get_result::<Vec<u8>>(conn).await.optional() })
                });
                Ok(data.await?.map(Bytes::from))
            }

            async fn has_context(&self, name: &str) -> Result<bool, StoreError> {
                let found = self.read(|conn| {
                    let query = contexts::table
                        .find(name.to_owned())
                        .select(contexts::kept_at);
                    Box::pin(async move { query.get_result::<DbTime>(conn).await.optional() })
                });
                Ok(found.await?.is_some())
            }

            async fn remove_contexts_before(&self, before: Timestamp) -> Result<u64, StoreError> {
                let change = BuildChange::RemoveContexts {
                    kept_before: before,
                };
                self.commit(Change::Build(change)).await
            }

            async fn remove_builds_finished_before(
                &self,
                before: Timestamp,
            ) -> Result<u64, StoreError> {
                let change = BuildChange::RemoveBuilds {
                    finished_before: before,
                };
                self.commit(Change::Build(change)).await
            }
        }
    };
}

pub(crate) use stamp_builds;
