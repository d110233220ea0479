//! Our own typed task language: each task is a pure plan and a short apply.

use serde::{Deserialize, Serialize};

/// A play: tasks in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Play {
    /// What it is for, in one line.
    pub name: String,
}
