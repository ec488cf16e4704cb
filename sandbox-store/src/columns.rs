//! Values as columns hold them, one newtype for every backend: each backend's schema says which of
//! its native types stands behind.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    serialize::{self, Output, ToSql},
    sql_types,
};
use sandbox_core::{clock::Timestamp, store::StoreError};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use uuid::Uuid;

/// A UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[cfg_attr(feature = "sqlite", diesel(sql_type = sql_types::Binary))]
#[cfg_attr(feature = "postgres", diesel(sql_type = sql_types::Uuid))]
pub(crate) struct DbUuid(pub(crate) Uuid);

/// A SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Binary)]
pub(crate) struct DbHash(pub(crate) [u8; 32]);

/// A point in time, whole microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[cfg_attr(feature = "sqlite", diesel(sql_type = sql_types::BigInt))]
#[cfg_attr(feature = "postgres", diesel(sql_type = sql_types::Timestamptz))]
pub(crate) struct DbTime(pub(crate) Timestamp);

/// A JSON document.
#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[cfg_attr(feature = "sqlite", diesel(sql_type = sql_types::Text))]
#[cfg_attr(feature = "postgres", diesel(sql_type = sql_types::Jsonb))]
pub(crate) struct DbJson(Value);

impl DbJson {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, StoreError> {
        serde_json::to_value(value)
            .map(Self)
            .map_err(|error| StoreError::Internal(format!("a value can't be written: {error}")))
    }

    pub(crate) fn read<T: DeserializeOwned>(self, column: &str) -> Result<T, StoreError> {
        serde_json::from_value(self.0)
            .map_err(|error| StoreError::Internal(format!("column `{column}`: {error}")))
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use chrono::DateTime;
    use diesel::{
        serialize::IsNull,
        sql_types::{BigInt, Binary, Text},
        sqlite::Sqlite,
    };

    impl ToSql<Binary, Sqlite> for DbUuid {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.as_bytes().as_slice());
            Ok(IsNull::No)
        }
    }

    impl FromSql<Binary, Sqlite> for DbUuid {
        fn from_sql(value: diesel::sqlite::SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
            Ok(Self(Uuid::from_slice(&bytes)?))
        }
    }

    impl ToSql<Binary, Sqlite> for DbHash {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.as_slice());
            Ok(IsNull::No)
        }
    }

    impl FromSql<Binary, Sqlite> for DbHash {
        fn from_sql(value: diesel::sqlite::SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let bytes = <Vec<u8> as FromSql<Binary, Sqlite>>::from_sql(value)?;
            Ok(Self(bytes.as_slice().try_into()?))
        }
    }

    impl ToSql<BigInt, Sqlite> for DbTime {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.timestamp_micros());
            Ok(IsNull::No)
        }
    }

    impl FromSql<BigInt, Sqlite> for DbTime {
        fn from_sql(value: diesel::sqlite::SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let micros = <i64 as FromSql<BigInt, Sqlite>>::from_sql(value)?;
            DateTime::from_timestamp_micros(micros)
                .map(Self)
                .ok_or_else(|| format!("{micros} µs is out of range").into())
        }
    }

    impl ToSql<Text, Sqlite> for DbJson {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
            out.set_value(self.0.to_string());
            Ok(IsNull::No)
        }
    }

    impl FromSql<Text, Sqlite> for DbJson {
        fn from_sql(value: diesel::sqlite::SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
            let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
            Ok(Self(serde_json::from_str(&text)?))
        }
    }
}

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use diesel::{
        pg::{Pg, PgValue},
        sql_types::{Binary, Jsonb, Timestamptz},
    };

    impl ToSql<sql_types::Uuid, Pg> for DbUuid {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<sql_types::Uuid, Pg>::to_sql(&self.0, out)
        }
    }

    impl FromSql<sql_types::Uuid, Pg> for DbUuid {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            FromSql::<sql_types::Uuid, Pg>::from_sql(value).map(Self)
        }
    }

    impl ToSql<Binary, Pg> for DbHash {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<Binary, Pg>::to_sql(self.0.as_slice(), &mut out.reborrow())
        }
    }

    impl FromSql<Binary, Pg> for DbHash {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            Ok(Self(value.as_bytes().try_into()?))
        }
    }

    impl ToSql<Timestamptz, Pg> for DbTime {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<Timestamptz, Pg>::to_sql(&self.0, out)
        }
    }

    impl FromSql<Timestamptz, Pg> for DbTime {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            FromSql::<Timestamptz, Pg>::from_sql(value).map(Self)
        }
    }

    impl ToSql<Jsonb, Pg> for DbJson {
        fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
            ToSql::<Jsonb, Pg>::to_sql(&self.0, out)
        }
    }

    impl FromSql<Jsonb, Pg> for DbJson {
        fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
            FromSql::<Jsonb, Pg>::from_sql(value).map(Self)
        }
    }
}
