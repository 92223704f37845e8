//! Role assignments.

use jeton_access::{AccessRecorded, AccessStore, AccessStoreError, AccessWrite};
use jeton_core::{BoxFuture, RoleAssignment};

use crate::{Store, recorded::Found, store::Inner};

const SCHEMA: i64 = 1;

fn failed(error: impl std::fmt::Display) -> AccessStoreError {
    AccessStoreError(error.to_string().into())
}

impl AccessStore for Store {
    fn load(&self) -> BoxFuture<'_, Result<Vec<RoleAssignment>, AccessStoreError>> {
        Box::pin(
            async move { self.0.bodies("SELECT name, body FROM role_assignments").await.map_err(failed) },
        )
    }

    fn commit(&self, writes: Vec<AccessWrite>) -> BoxFuture<'_, Result<(), AccessStoreError>> {
        Box::pin(async move {
            let outcome = self.0.commit_access(&writes).await;
            self.0.note_write(outcome.as_ref().err().map(ToString::to_string));
            outcome
        })
    }

    fn recorded(
        &self,
        request_id: String,
    ) -> BoxFuture<'_, Result<Option<AccessRecorded>, AccessStoreError>> {
        Box::pin(async move {
            let found = self.0.find_recorded(&request_id).await.map_err(failed)?;
            Ok(found.map(|Found { fingerprint, resource, at, answer }| AccessRecorded {
                request_id,
                fingerprint,
                resource,
                at,
                answer,
            }))
        })
    }
}

impl Inner {
    async fn commit_access(&self, writes: &[AccessWrite]) -> Result<(), AccessStoreError> {
        let mut transaction = self.registry.begin().await.map_err(failed)?;
        for write in writes {
            match write {
                AccessWrite::Put(assignment) => {
                    sqlx::query("INSERT INTO role_assignments (uid, name, schema, body) VALUES (?, ?, ?, ?)")
                        .bind(&assignment.uid.as_bytes()[..])
                        .bind(assignment.name.as_str())
                        .bind(SCHEMA)
                        .bind(serde_json::to_string(assignment).map_err(failed)?)
                        .execute(&mut *transaction)
                        .await
                        .map_err(failed)?;
                }
                AccessWrite::Remove(uid) => {
                    let query =
                        sqlx::query("DELETE FROM role_assignments WHERE uid = ?").bind(&uid.as_bytes()[..]);
                    query.execute(&mut *transaction).await.map_err(failed)?;
                }
                AccessWrite::Recorded(r) => {
                    let found = Found {
                        fingerprint: r.fingerprint.clone(),
                        resource: r.resource,
                        at: r.at,
                        answer: r.answer.clone(),
                    };
                    self.record(&mut transaction, &r.request_id, found).await.map_err(failed)?;
                }
            }
        }
        transaction.commit().await.map_err(failed)
    }
}
