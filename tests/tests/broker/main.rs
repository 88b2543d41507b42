//! The broker against the reference model, in simulated worlds and in single scenes.

mod forged;
mod policy;
mod policy_matrix;
mod quota;
mod simulated;
