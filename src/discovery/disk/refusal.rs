use std::fmt;
use std::io;

/// Why a snapshot on disk is not used: what was expected, and what was found.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It does not begin as a snapshot does.
    NotASnapshot { found: String },
    /// Another version of this crate wrote it.
    Version { found: String },
    /// It is cut off, or something was added.
    Length { expected: usize, found: usize },
    /// Its bytes changed.
    Checksum { expected: String, found: String },
    /// A line says what cannot be, although the checksum holds.
    Line { number: usize },
    /// It is another's.
    Owner { expected: String, found: String },
    /// Another user wrote it, or can.
    Access { expected: String, found: String },
    /// It cannot be a snapshot at that size.
    Size { most: u64, found: u64 },
    /// It cannot be read.
    Io(io::Error),
}

impl Refusal {
    /// What to call the file from now on, so that people can look at it and the next start does not meet it. `None` leaves
    /// it where it is.
    pub(super) fn extension(&self) -> Option<&'static str> {
        match self {
            Self::NotASnapshot { .. }
            | Self::Length { .. }
            | Self::Checksum { .. }
            | Self::Line { .. } => Some("corrupt"),
            Self::Version { .. } | Self::Owner { .. } | Self::Access { .. } | Self::Size { .. } => {
                Some("rejected")
            }
            Self::Io(_) => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASnapshot { found } => {
                write!(f, "expected a snapshot, found a file that begins {found:?}")
            }
            Self::Version { found } => {
                write!(
                    f,
                    "of another version: expected version {}, found {found:?}",
                    super::format::VERSION
                )
            }
            Self::Length { expected, found } => {
                let what = if found < expected {
                    "cut off"
                } else {
                    "prolonged"
                };
                write!(
                    f,
                    "{what}: expected {expected} bytes after the header, found {found}"
                )
            }
            Self::Checksum { expected, found } => {
                write!(
                    f,
                    "corrupted: expected the checksum {expected:?}, found {found:?}"
                )
            }
            Self::Line { number } => write!(f, "line {number} cannot be read"),
            Self::Owner { expected, found } => {
                write!(f, "expected the owner {expected:?}, found {found:?}")
            }
            Self::Access { expected, found } => write!(f, "expected {expected}, found {found}"),
            Self::Size { most, found } => {
                write!(f, "expected at most {most} bytes, found {found}")
            }
            Self::Io(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
