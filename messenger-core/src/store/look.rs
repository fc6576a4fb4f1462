//! A connection that only reads, beside whoever uses the database.

use sea_orm::{DatabaseConnection, DbBackend};

use super::connect::{Access, close, connect, reach};
use super::{Target, schema, size};
use crate::builder::Durability;
use crate::error::Result;
use crate::limits::Limits;

/// A database that is looked at: nothing is migrated, and no fence begins.
#[derive(Debug)]
pub(crate) struct Look {
    target: Target,
    db: DatabaseConnection,
    schema_version: String,
}

impl Look {
    pub(crate) async fn open(target: &Target, limits: &Limits) -> Result<Self> {
        if let Target::Postgres(url) = target {
            reach(target, url).await?;
        }
        let db = connect(target, Durability::Full, Access::Look, limits).await?;
        let schema_version = match schema::require_current(&db).await {
            Ok(version) => version,
            Err(error) => {
                close(&db).await;
                return Err(error);
            }
        };
        Ok(Self {
            target: target.clone(),
            db,
            schema_version,
        })
    }

    pub(crate) fn db(&self) -> &DatabaseConnection {
        &self.db
    }

    pub(crate) fn backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    /// `sqlite` or `postgres`.
    pub(crate) fn name(&self) -> &'static str {
        super::name(self.backend())
    }

    pub(crate) fn schema_version(&self) -> &str {
        &self.schema_version
    }

    pub(crate) async fn close(&self) {
        close(&self.db).await;
    }

    pub(crate) async fn bytes(&self) -> Result<u64> {
        size::bytes(&self.target, &self.db).await
    }
}
