//! As `dns`, where no answer fits into a datagram.

pub type Row = super::dns::Asked<true>;
