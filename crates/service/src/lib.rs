//! The scoria-volume daemon.
