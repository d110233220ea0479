//! The only consumer of events and the only printer of failures.
