//! The tool as scripts and people see it: real processes, what they write, and how they end.

mod bench;
mod bridge;
mod calls;
mod command;
mod coordination;
mod datagrams;
mod demo;
mod events;
mod inspect;
mod keys;
mod network;
mod output;
mod queues;
mod serving;
mod terminal;
mod unreachable;
mod usage;
