//! Days on which much goes wrong at once, and one client that must not notice.

mod endings;
mod lies;
mod places;
mod sluggards;
