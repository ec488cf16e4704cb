//! Template builds in memory.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;

use super::{MemoryStore, Tables};
use crate::{
    build::{
        BuildFilter, BuildPage, BuildPageRequest, BuildRecord, BuildStep, LogCursor, LogEntry,
    },
    clock::Timestamp,
    id::{BuildId, TeamId},
    sandbox::PageRequest,
    store::{BuildStore, BuildWrite, StoreError},
};

impl Tables {
    /// Writes a build and its templates, one behind the other, or nothing.
    fn put_build(&mut self, write: BuildWrite) -> Result<(), StoreError> {
        let before = self.templates.clone();
        for template in &write.templates {
            if let Err(error) = self.check(&template.change) {
                self.templates = before;
                return Err(error);
            }
            self.put_record(template.change.clone());
        }
        for template in write.templates {
            self.note(template.operation);
            self.audit.extend(template.audit);
        }
        for step in write.steps {
            let place = (step.build_id, step.attempt, step.step);
            self.build_steps.insert(place, step);
        }
        self.builds.insert(write.record.id, write.record);
        self.audit.extend(write.audit);
        Ok(())
    }
}

#[async_trait]
impl BuildStore for MemoryStore {
    async fn insert_build(&self, write: BuildWrite) -> Result<(), StoreError> {
        self.write(|tables| {
            let new = &write.record;
            let same_key = |other: &BuildRecord| {
                (other.team_id, &other.idempotency_key) == (new.team_id, &new.idempotency_key)
            };
            let key_taken = new.idempotency_key.is_some() && tables.builds.values().any(same_key);
            if key_taken || tables.builds.contains_key(&new.id) {
                return Err(StoreError::Duplicate);
            }
            tables.put_build(write)
        })
        .await
    }

    async fn update_build(&self, write: BuildWrite) -> Result<(), StoreError> {
        self.write(|tables| {
            let there = tables.builds.get(&write.record.id);
            if there.is_none_or(|there| there.version + 1 != write.record.version) {
                return Err(StoreError::Conflict);
            }
            tables.put_build(write)
        })
        .await
    }

    async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, StoreError> {
        Ok(self.read(|tables| tables.builds.get(&id).cloned()).await)
    }

    async fn build_by_idempotency_key(
        &self,
        team: TeamId,
        key: &str,
    ) -> Result<Option<BuildRecord>, StoreError> {
        Ok(self
            .read(|tables| {
                let same = |record: &&BuildRecord| {
                    record.team_id == team && record.idempotency_key.as_deref() == Some(key)
                };
                tables.builds.values().find(same).cloned()
            })
            .await)
    }

    async fn list_builds(
        &self,
        filter: &BuildFilter,
        page: BuildPageRequest,
    ) -> Result<BuildPage, StoreError> {
        Ok(self
            .read(|tables| {
                let limit = page.limit.clamp(1, PageRequest::LIMIT_MAX) as usize;
                let mut all: Vec<&BuildRecord> = tables.builds.values().collect();
                if filter.newest_first {
                    all.reverse();
                }
                let behind = |record: &&&BuildRecord| match (page.after, filter.newest_first) {
                    (None, _) => true,
                    (Some(after), false) => record.id > after,
                    (Some(after), true) => record.id < after,
                };
                let mut items: Vec<BuildRecord> = all
                    .iter()
                    .filter(behind)
                    .filter(|record| filter.matches(record))
                    .take(limit + 1)
                    .map(|record| (*record).clone())
                    .collect();
                let more = items.len() > limit;
                items.truncate(limit);
                BuildPage {
                    next: items.last().filter(|_| more).map(|record| record.id),
                    items,
                }
            })
            .await)
    }

    async fn build_steps(&self, id: BuildId, attempt: u32) -> Result<Vec<BuildStep>, StoreError> {
        Ok(self
            .read(|tables| {
                let steps = tables
                    .build_steps
                    .range((id, attempt, 0)..=(id, attempt, u32::MAX));
                steps.map(|(_, step)| step.clone()).collect()
            })
            .await)
    }

    async fn append_build_log(
        &self,
        id: BuildId,
        entries: Vec<LogEntry>,
    ) -> Result<(), StoreError> {
        self.write(|tables| {
            if !entries.is_empty() && !tables.builds.contains_key(&id) {
                return Err(StoreError::Conflict);
            }
            for entry in entries {
                tables.build_log.entry((id, entry.cursor)).or_insert(entry);
            }
            Ok(())
        })
        .await
    }

    async fn build_log(
        &self,
        id: BuildId,
        after: LogCursor,
        max_bytes: u32,
    ) -> Result<Vec<LogEntry>, StoreError> {
        Ok(self
            .read(|tables| {
                let mut room = u64::from(max_bytes);
                let mut entries: Vec<LogEntry> = Vec::new();
                let behind = LogCursor(after.0.saturating_add(1));
                for entry in tables
                    .build_log
                    .range((id, behind)..=(id, LogCursor(u64::MAX)))
                {
                    let size = entry.1.data.len() as u64;
                    if size > room && !entries.is_empty() {
                        break;
                    }
                    room = room.saturating_sub(size);
                    entries.push(entry.1.clone());
                }
                entries
            })
            .await)
    }

    async fn put_context(&self, name: &str, data: Bytes, at: Timestamp) -> Result<(), StoreError> {
        self.write(|tables| {
            tables.contexts.insert(name.to_owned(), (at, data));
            Ok(())
        })
        .await
    }

    async fn context(&self, name: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self
            .read(|tables| tables.contexts.get(name).map(|(_, data)| data.clone()))
            .await)
    }

    async fn has_context(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.read(|tables| tables.contexts.contains_key(name)).await)
    }

    async fn remove_contexts_before(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(|tables| {
            let wanted: BTreeSet<String> = tables
                .builds
                .values()
                .filter(|build| !build.status.ended())
                .filter_map(|build| build.context.clone())
                .collect();
            let count = tables.contexts.len();
            tables
                .contexts
                .retain(|name, (at, _)| *at >= before || wanted.contains(name));
            Ok((count - tables.contexts.len()) as u64)
        })
        .await
    }

    async fn remove_builds_finished_before(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.write(|tables| {
            let count = tables.builds.len();
            tables
                .builds
                .retain(|_, build| build.finished_at.is_none_or(|at| at >= before));
            let Tables {
                builds,
                build_steps,
                build_log,
                ..
            } = tables;
            build_steps.retain(|(id, ..), _| builds.contains_key(id));
            build_log.retain(|(id, _), _| builds.contains_key(id));
            Ok((count - tables.builds.len()) as u64)
        })
        .await
    }
}
