//! Log lines as oslo.log writes them, and JSON.
