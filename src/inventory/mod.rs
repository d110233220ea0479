//! The inventory: which machines there are and what cluster they shall be.

mod model;

pub use model::*;
