//! Installed as a package and run by others: the files of `packaging/`, service managers, containers.

mod container;
mod files;
mod manager;
