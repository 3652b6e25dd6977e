//! The operations of the volume service.
