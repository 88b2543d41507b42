//! PURE. Values to text: for people, in tables and colour, and for programs, as JSON.

mod json;
mod paint;
mod table;
mod text;

pub(crate) use json::{IdentityJson, PayloadJson, PeerJson};
pub(crate) use paint::Palette;
pub(crate) use table::{Column, Table};
pub(crate) use text::{
    bytes_for_people, count_for_people, duration_for_people, escape, one_line, payload_for_people,
    peer_for_people, plural,
};
