//! Puts a service together from its configuration, and runs it.
//!
//! [`parts`] turns options into database, lock service, broker and drivers; [`daemon`] runs them until a signal ends it; [`log`] says where
//! lines go.
//! The `scoria` command uses [`parts`] too. Nothing else is here: no operation, no format, no decision about a volume.

pub mod command_line;
pub mod daemon;
pub mod log;
pub mod parts;
mod signals;
mod status;
