//! The scoria command.
