//! The only user of the YAML parser: strict options, positions, findings.
