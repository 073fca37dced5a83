//! The bulkhead layer.
