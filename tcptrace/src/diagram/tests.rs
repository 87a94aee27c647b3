//! Diagrams of recorded traces.
