//! The thick client: policies by service name.
