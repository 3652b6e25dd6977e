//! Repositories over Cinder's schema on SQLite, MySQL and PostgreSQL.
