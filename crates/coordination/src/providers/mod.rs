//! The lock services.
