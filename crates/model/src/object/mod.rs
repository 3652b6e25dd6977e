//! Versioned objects on the wire.
