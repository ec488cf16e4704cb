//! The queries, and `Store` over them.

/// Stamps `impl Store` for one backend.
///
/// What can be there once at most is asked for without `first`: it would add a bound `LIMIT`, for
/// which SQLite prepares a statement anew each time.
///
/// - `schema`: its schema module; besides the tables it has `has_label(key, value)`, the condition
///   that a sandbox carries a label, since JSON is asked differently everywhere.
/// - `rows`: the module with its stamped rows.
/// - `store`: its store, which has
///   - `async fn commit(&self, Change) -> Result<u64, StoreError>`: applies the change by the
///     stamped `apply` in one transaction, whole even when the caller goes away meanwhile;
///   - `async fn read<T>(&self, impl for<'c> Fn(&'c mut connection) -> Reading<'c, T>) ->
///     Result<T, StoreError>`: runs a query on a reading connection; it may run it again.
macro_rules! stamp_store {
    (
        store: $store:ty,
        connection: $connection:ty,
        backend: $backend:ty,
        schema: $schema:path,
        rows: $rows:path $(,)?
    ) => {
        use async_trait::async_trait;
        use diesel::{OptionalExtension, dsl::sql, prelude::*, sql_types::Bool};
        use diesel_async::RunQueryDsl;
        use sandbox_core::{
            audit::AuditEntry,
            clock::Timestamp,
            host::HostSeen,
            id::{HostId, OperationId, SandboxId, TeamId, TemplateId},
            operation::OperationRecord,
            sandbox::{Page, PageRequest, SandboxFilter, SandboxRecord, SandboxState},
            store::{SandboxWrite, Store, StoreError, TemplateChange, TemplateWrite},
            template::{
                TemplateFilter, TemplatePage, TemplatePageRequest, TemplateRecord, TemplateState,
            },
        };
        use $rows as rows;
        use $schema as schema;

        use crate::{
            change::{Change, Failure},
            columns::{DbHash, DbTime, DbUuid},
            stamp::{from_column, named, to_column},
        };
        use rows::{AuditRow, HostRow, OperationRow, SandboxRow, TemplateRow};
        use schema::{audit_logs, hosts, operations, sandboxes, templates};

        /// Applies a change, inside a transaction. Returns how many records went, for changes that
        /// remove any number.
        pub(super) async fn apply(conn: &mut $connection, change: &Change) -> Result<u64, Failure> {
            match change {
                Change::Insert(write) => {
                    diesel::insert_into(sandboxes::table)
                        .values(SandboxRow::of(&write.record)?)
                        .execute(conn)
                        .await?;
                    beside(conn, &write.operations, write.audit.as_ref()).await?;
                    if let Some(template) = &write.template {
                        apply_template(conn, template).await?;
                    }
                    Ok(0)
                }
                Change::Update(write) => {
                    let before = write.record.version.checked_sub(1);
                    let before = before.ok_or(StoreError::Conflict)?;
                    let there = sandboxes::table
                        .find(DbUuid(write.record.id.uuid()))
                        .filter(sandboxes::version.eq(to_column::<_, i64>("version", before)?));
                    let written = diesel::update(there)
                        .set(SandboxRow::of(&write.record)?)
                        .execute(conn)
                        .await?;
                    if written == 0 {
                        return Err(StoreError::Conflict.into());
                    }
                    beside(conn, &write.operations, write.audit.as_ref()).await?;
                    if let Some(template) = &write.template {
                        apply_template(conn, template).await?;
                    }
                    Ok(0)
                }
                Change::Remove {
                    id,
                    version,
                    operation,
                    audit,
                } => {
                    let there = sandboxes::table
                        .find(DbUuid(id.uuid()))
                        .filter(sandboxes::version.eq(to_column::<_, i64>("version", *version)?));
                    if diesel::delete(there).execute(conn).await? == 0 {
                        return Err(StoreError::Conflict.into());
                    }
                    beside(conn, operation.as_slice(), Some(audit)).await?;
                    Ok(0)
                }
                Change::Template(write) => {
                    apply_template(conn, write).await?;
                    Ok(0)
                }
                Change::Build(change) => super::build_queries::apply_build(conn, change).await,
                Change::NoteHost(seen) => {
                    diesel::insert_into(hosts::table)
                        .values(HostRow::of(seen)?)
                        .on_conflict(hosts::id)
                        .do_update()
                        .set(HostRow::of(seen)?)
                        .execute(conn)
                        .await?;
                    Ok(0)
                }
                Change::RemoveOperations { finished_before } => {
                    let old = operations::table
                        .filter(operations::finished_at.lt(DbTime(*finished_before)));
                    let removed = diesel::delete(old).execute(conn).await?;
                    Ok(removed as u64)
                }
            }
        }

        /// Applies a template's write, inside a transaction.
        pub(super) async fn apply_template(
            conn: &mut $connection,
            write: &TemplateWrite,
        ) -> Result<(), Failure> {
            // A name that is taken fails in the unique index over names in use.
            let written = match &write.change {
                TemplateChange::Insert(record) => {
                    diesel::insert_into(templates::table)
                        .values(TemplateRow::of(record)?)
                        .execute(conn)
                        .await?
                }
                TemplateChange::Update(record) => {
                    let before = record.version.checked_sub(1);
                    let before = before.ok_or(StoreError::Conflict)?;
                    let there = templates::table
                        .find(DbUuid(record.id.uuid()))
                        .filter(templates::version.eq(to_column::<_, i64>("version", before)?));
                    diesel::update(there)
                        .set(TemplateRow::of(record)?)
                        .execute(conn)
                        .await?
                }
                TemplateChange::Remove(id, version) => {
                    let there = templates::table
                        .find(DbUuid(id.uuid()))
                        .filter(templates::version.eq(to_column::<_, i64>("version", *version)?));
                    diesel::delete(there).execute(conn).await?
                }
            };
            if written == 0 {
                return Err(StoreError::Conflict.into());
            }
            beside(conn, write.operation.as_slice(), write.audit.as_ref()).await
        }

        /// What goes into the same transaction as a record.
        pub(super) async fn beside(
            conn: &mut $connection,
            records: &[OperationRecord],
            audit: Option<&AuditEntry>,
        ) -> Result<(), Failure> {
            for operation in records {
                diesel::insert_into(operations::table)
                    .values(OperationRow::of(operation)?)
                    .on_conflict(operations::id)
                    .do_update()
                    .set(OperationRow::of(operation)?)
                    .execute(conn)
                    .await?;
            }
            if let Some(entry) = audit {
                diesel::insert_into(audit_logs::table)
                    .values(AuditRow::of(entry))
                    .execute(conn)
                    .await?;
            }
            Ok(())
        }

        #[async_trait]
        impl Store for $store {
            async fn insert_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
                self.commit(Change::Insert(write)).await.map(drop)
            }

            async fn update_sandbox(&self, write: SandboxWrite) -> Result<(), StoreError> {
                self.commit(Change::Update(write)).await.map(drop)
            }

            async fn remove_sandbox(
                &self,
                id: SandboxId,
                version: u64,
                operation: Option<OperationRecord>,
                audit: AuditEntry,
            ) -> Result<(), StoreError> {
                let change = Change::Remove {
                    id,
                    version,
                    operation,
                    audit,
                };
                self.commit(change).await.map(drop)
            }

            async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = sandboxes::table
                        .find(DbUuid(id.uuid()))
                        .select(SandboxRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(SandboxRow::record).transpose()
            }

            async fn sandbox_by_idempotency_key(
                &self,
                team: TeamId,
                key: &str,
            ) -> Result<Option<SandboxRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = sandboxes::table
                        .filter(sandboxes::team_id.eq(DbUuid(team.uuid())))
                        .filter(sandboxes::idempotency_key.eq(key.to_owned()))
                        .select(SandboxRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(SandboxRow::record).transpose()
            }

            async fn list_sandboxes(
                &self,
                filter: &SandboxFilter,
                page: PageRequest,
            ) -> Result<Page<SandboxRecord>, StoreError> {
                let limit = page.limit.clamp(1, PageRequest::LIMIT_MAX);
                let rows = self.read(|conn| {
                    let mut query = sandboxes::table
                        .select(SandboxRow::as_select())
                        .order(sandboxes::id.asc())
                        // One more than asked for tells whether there is a next page.
                        .limit(i64::from(limit) + 1)
                        .into_boxed::<$backend>();
                    if let Some(after) = page.after {
                        query = query.filter(sandboxes::id.gt(DbUuid(after.uuid())));
                    }
                    if !filter.of_builds {
                        query = query.filter(sandboxes::build_id.is_null());
                    }
                    if let Some(team) = filter.team_id {
                        query = query.filter(sandboxes::team_id.eq(DbUuid(team.uuid())));
                    }
                    if let Some(template) = filter.template_id {
                        query = query.filter(sandboxes::template_id.eq(DbUuid(template.uuid())));
                    }
                    if let Some(state) = filter.state {
                        query = query.filter(sandboxes::state.eq(state.as_str()));
                    }
                    if let Some(template) = &filter.template {
                        let template = template.as_str().to_owned();
                        query = query.filter(sandboxes::template.eq(template));
                    }
                    for (key, value) in &filter.metadata {
                        query = query.filter(schema::has_label(key.clone(), value.clone()));
                    }
                    Box::pin(async move { query.load(conn).await })
                });
                let mut rows: Vec<SandboxRow> = rows.await?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let items: Vec<SandboxRecord> = rows
                    .into_iter()
                    .map(SandboxRow::record)
                    .collect::<Result<_, _>>()?;
                let next = items.last().filter(|_| more).map(|last| last.id);
                Ok(Page { items, next })
            }

            async fn write_template(&self, write: TemplateWrite) -> Result<(), StoreError> {
                self.commit(Change::Template(write)).await.map(drop)
            }

            async fn template(&self, id: TemplateId) -> Result<Option<TemplateRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = templates::table
                        .find(DbUuid(id.uuid()))
                        .select(TemplateRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(TemplateRow::record).transpose()
            }

            async fn list_templates(
                &self,
                filter: &TemplateFilter,
                page: TemplatePageRequest,
            ) -> Result<TemplatePage, StoreError> {
                let limit = page.limit.clamp(1, PageRequest::LIMIT_MAX);
                let rows = self.read(|conn| {
                    let mut query = templates::table
                        .select(TemplateRow::as_select())
                        .order(templates::id.asc())
                        .limit(i64::from(limit) + 1)
                        .into_boxed::<$backend>();
                    if let Some(after) = page.after {
                        query = query.filter(templates::id.gt(DbUuid(after.uuid())));
                    }
                    if let Some(teams) = &filter.teams {
                        let teams = teams.iter().map(|team| DbUuid(team.uuid()));
                        let teams: Vec<DbUuid> = teams.collect();
                        query = query.filter(templates::team_id.eq_any(teams));
                    }
                    if let Some(kind) = filter.kind {
                        query = query.filter(templates::kind.eq(kind.as_str()));
                    }
                    if let Some(name) = &filter.name {
                        query = query.filter(templates::name.eq(name.as_str().to_owned()));
                    }
                    if let Some(layer) = &filter.layer {
                        query = query.filter(templates::layer.eq(DbHash(*layer.as_bytes())));
                    }
                    if !filter.all_states {
                        // The second condition follows from the first. Written like the index of
                        // names in use, it lets that serve a search by name.
                        query = query
                            .filter(templates::state.eq(TemplateState::Ready.as_str()))
                            .filter(sql::<Bool>("templates.state <> 'deleting'"));
                    }
                    Box::pin(async move { query.load(conn).await })
                });
                let mut rows: Vec<TemplateRow> = rows.await?;
                let more = rows.len() > limit as usize;
                rows.truncate(limit as usize);
                let items: Vec<TemplateRecord> = rows
                    .into_iter()
                    .map(TemplateRow::record)
                    .collect::<Result<_, _>>()?;
                let next = items.last().filter(|_| more).map(|last| last.id);
                Ok(TemplatePage { items, next })
            }

            async fn count_sandboxes(&self) -> Result<Vec<(SandboxState, u64)>, StoreError> {
                let counted = self.read(|conn| {
                    let query = sandboxes::table
                        .filter(sandboxes::build_id.is_null())
                        .group_by(sandboxes::state)
                        .select((sandboxes::state, diesel::dsl::count_star()));
                    Box::pin(async move { query.load(conn).await })
                });
                let rows: Vec<(String, i64)> = counted.await?;
                let counts = rows.into_iter().map(|(state, count)| {
                    let state = named("state", &SandboxState::ALL, SandboxState::as_str, &state)?;
                    Ok((state, from_column("count", count)?))
                });
                counts.collect()
            }

            async fn operation(
                &self,
                id: OperationId,
            ) -> Result<Option<OperationRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = operations::table
                        .find(DbUuid(id.uuid()))
                        .select(OperationRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(OperationRow::record).transpose()
            }

            async fn last_operation_on(
                &self,
                id: SandboxId,
            ) -> Result<Option<OperationRecord>, StoreError> {
                let row = self.read(|conn| {
                    let query = operations::table
                        .filter(operations::sandbox_id.eq(DbUuid(id.uuid())))
                        .order((operations::started_at.desc(), operations::id.desc()))
                        .select(OperationRow::as_select());
                    Box::pin(async move { query.first(conn).await.optional() })
                });
                row.await?.map(OperationRow::record).transpose()
            }

            async fn note_host(&self, seen: HostSeen) -> Result<(), StoreError> {
                self.commit(Change::NoteHost(seen)).await.map(drop)
            }

            async fn host(&self, id: HostId) -> Result<Option<HostSeen>, StoreError> {
                let row = self.read(|conn| {
                    let query = hosts::table
                        .find(DbUuid(id.uuid()))
                        .select(HostRow::as_select());
                    Box::pin(async move { query.get_result(conn).await.optional() })
                });
                row.await?.map(HostRow::seen).transpose()
            }

            async fn remove_operations_finished_before(
                &self,
                before: Timestamp,
            ) -> Result<u64, StoreError> {
                self.commit(Change::RemoveOperations {
                    finished_before: before,
                })
                .await
            }

            async fn audit_of(
                &self,
                resource: &str,
                limit: u32,
            ) -> Result<Vec<AuditEntry>, StoreError> {
                let rows = self.read(|conn| {
                    let query = audit_logs::table
                        .filter(audit_logs::resource.eq(resource.to_owned()))
                        .order((audit_logs::at.asc(), audit_logs::id.asc()))
                        .limit(i64::from(limit))
                        .select(AuditRow::as_select());
                    Box::pin(async move { query.load(conn).await })
                });
                let rows: Vec<AuditRow> = rows.await?;
                rows.into_iter().map(AuditRow::entry).collect()
            }
        }
    };
}

pub(crate) use stamp_store;
