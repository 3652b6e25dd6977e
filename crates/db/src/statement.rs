//! Small words for building statements.

use scoria_model::{
    AttachStatus, AttachmentId, GroupId, SnapshotId, SnapshotStatus, Timestamp, UserMessageId, VolumeId, VolumeStatus,
    VolumeTypeId,
};
use sea_query::{Expr, ExprTrait, InsertStatement, IntoIden, LikeExpr, Query, UpdateStatement, Value};

use crate::Dialect;

/// A value as a column holds it.
pub(crate) trait ColumnValue {
    /// Null of the column's type: PostgreSQL wants to know the type.
    const NULL: Value;
    fn value(&self) -> Value;
}

impl<T: ColumnValue> ColumnValue for Option<T> {
    const NULL: Value = T::NULL;
    fn value(&self) -> Value {
        self.as_ref().map_or(T::NULL, T::value)
    }
}

impl<T: ColumnValue + ?Sized> ColumnValue for &T {
    const NULL: Value = T::NULL;
    fn value(&self) -> Value {
        T::value(self)
    }
}

macro_rules! text {
    ($($type:ty),*) => {$(
        impl ColumnValue for $type {
            const NULL: Value = Value::String(None);
            fn value(&self) -> Value {
                Value::String(Some(AsText::as_text(self).to_owned()))
            }
        }
    )*};
}

trait AsText {
    fn as_text(&self) -> &str;
}

macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl AsText for $type {
            fn as_text(&self) -> &str {
                self.as_str()
            }
        }
    )*};
}

as_text!(
    String,
    VolumeStatus,
    SnapshotStatus,
    AttachStatus,
    VolumeId,
    SnapshotId,
    AttachmentId,
    VolumeTypeId,
    GroupId,
    UserMessageId
);

impl AsText for str {
    fn as_text(&self) -> &str {
        self
    }
}

text!(
    String,
    str,
    VolumeStatus,
    SnapshotStatus,
    AttachStatus,
    VolumeId,
    SnapshotId,
    AttachmentId,
    VolumeTypeId,
    GroupId,
    UserMessageId
);

impl ColumnValue for bool {
    const NULL: Value = Value::Bool(None);
    fn value(&self) -> Value {
        Value::Bool(Some(*self))
    }
}

/// Integer columns have 32 bits. What does not fit (no real size or id) becomes the largest, which no row has.
impl ColumnValue for i64 {
    const NULL: Value = Value::Int(None);
    fn value(&self) -> Value {
        Value::Int(Some(i32::try_from(*self).unwrap_or(if *self < 0 { i32::MIN } else { i32::MAX })))
    }
}

impl ColumnValue for u64 {
    const NULL: Value = Value::Int(None);
    fn value(&self) -> Value {
        Value::Int(Some(i32::try_from(*self).unwrap_or(i32::MAX)))
    }
}

impl ColumnValue for Timestamp {
    const NULL: Value = Value::TimeDateTime(None);
    fn value(&self) -> Value {
        Value::TimeDateTime(Some(self.naive()))
    }
}

/// A value as an expression.
pub(crate) fn val<T: ColumnValue + ?Sized>(value: &T) -> Expr {
    Expr::Value(value.value())
}

/// A column.
pub(crate) fn col(name: &'static str) -> Expr {
    Expr::col(name)
}

/// `column = value`.
pub(crate) fn is<T: ColumnValue + ?Sized>(column: &'static str, value: &T) -> Expr {
    col(column).eq(val(value))
}

/// `column = value`, or `column IS NULL` for `None`.
pub(crate) fn is_opt<T: ColumnValue>(column: &'static str, value: Option<&T>) -> Expr {
    match value {
        Some(value) => is(column, value),
        None => col(column).is_null(),
    }
}

/// `column IN (values)`.
pub(crate) fn one_of<T: ColumnValue>(column: &'static str, values: &[T]) -> Expr {
    col(column).is_in(values.iter().map(val))
}

/// The row is not soft-deleted.
pub(crate) fn live() -> Expr {
    is("deleted", &false)
}

/// What an insert or an update writes: columns with their values, in order.
pub(crate) type Assignments = Vec<(&'static str, Value)>;

/// `INSERT` of one row.
pub(crate) fn insert(table: &'static str, values: Assignments) -> InsertStatement {
    let (columns, values): (Vec<_>, Vec<_>) = values.into_iter().unzip();
    let mut statement = Query::insert();
    statement.into_table(table).columns(columns).values_panic(values.into_iter().map(Expr::Value));
    statement
}

/// `UPDATE` of the rows that the caller's conditions, yet to be added, will match. `updated_at` becomes now unless it is given.
pub(crate) fn update(table: &'static str, values: Assignments) -> UpdateStatement {
    let mut statement = Query::update();
    let stamped = values.iter().any(|(column, _)| *column == "updated_at");
    statement.table(table).values(values.into_iter().map(|(column, value)| (column, Expr::Value(value))));
    if !stamped {
        statement.value("updated_at", val(&Timestamp::now()));
    }
    statement
}

/// `UPDATE` that soft-deletes, leaving `updated_at` as it is, as Cinder does.
pub(crate) fn soft_delete(table: &'static str, more: Assignments) -> UpdateStatement {
    let mut statement = Query::update();
    statement
        .table(table)
        .values(more.into_iter().map(|(column, value)| (column, Expr::Value(value))))
        .value("deleted", val(&true))
        .value("deleted_at", val(&Timestamp::now()))
        .value("updated_at", col("updated_at"));
    statement
}

/// The columns that every inserted row has besides its own.
pub(crate) fn born() -> Assignments {
    vec![("created_at", Timestamp::now().value()), ("deleted", false.value())]
}

/// Whether a host (or cluster) column is at or below a place (`cinder/db/api.py: _filter_host`): a pool matches exactly, a back
/// end matches its pools too, a node its back ends and pools. Bytes are compared on MySQL, and nothing is escaped in the
/// pattern, both as Cinder does.
pub(crate) fn at_place(dialect: Dialect, column: &'static str, place: &str) -> Expr {
    let text = |text: String| match dialect {
        Dialect::MySql => Expr::cust_with_expr("BINARY ?", val(&text)),
        _ => val(&text),
    };
    let like = |pattern: String| match dialect {
        Dialect::MySql => Expr::cust_with_exprs("? LIKE BINARY ?", [col(column), val(&pattern)]),
        _ => col(column).like(LikeExpr::new(pattern)),
    };
    let exact = col(column).eq(text(place.to_owned()));
    if place.contains('#') {
        exact
    } else if place.contains('@') {
        exact.or(like(format!("{place}#%")))
    } else {
        exact.or(like(format!("{place}#%"))).or(like(format!("{place}@%")))
    }
}

/// Columns of a table, qualified.
pub(crate) fn of(table: &'static str, columns: &[&'static str]) -> Vec<(sea_query::DynIden, sea_query::DynIden)> {
    columns.iter().map(|column| (table.into_iden(), column.into_iden())).collect()
}
